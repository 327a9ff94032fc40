"""CHAIR's numbers on captions counted by hand, and against numbers measured on real ones."""

from __future__ import annotations

from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.files.answers import Caption
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.output import sentence_row
from eval.tasks.chair.scoring import (
    ScoredArm,
    cut_words,
    drop_unfinished,
    in_json,
    metrics,
    score,
)
from eval.tasks.chair.truth import read

LEXICON = choose("lexicon")
TRUTH = {
    1: frozenset({"dog", "person"}),
    2: frozenset({"cat", "chair", "couch"}),
    3: frozenset(),
}
CAPTIONS = [
    Caption(1, "A man with a dog, a dog and a kite."),  # 4 mentions, 1 hallucinated, 2 of 2
    Caption(2, "A bus, a bus."),  # 2 mentions, 2 hallucinated, 0 of 3
    Caption(3, "Nothing here"),  # no mentions, nothing to recall
]


def test_metrics_counted_by_hand() -> None:
    values = ScoredArm("x", score(CAPTIONS, TRUTH, LEXICON)).values()

    assert values == {
        "CHAIRs": pytest.approx(2 / 3),
        "CHAIRi": pytest.approx(3 / 6),
        "Recall": pytest.approx(2 / 5),
        "Len": pytest.approx((12 + 6 + 2) / 3 / 100),
    }


def test_sentences_counted_by_hand() -> None:
    first, second, third = (sentence_row(c) for c in score(CAPTIONS, TRUTH, LEXICON))

    assert first["mscoco_generated_words"] == ["person", "dog", "dog", "kite"]
    assert first["mscoco_hallucinated_words"] == [["kite", "kite"]]
    assert first["mscoco_gt_words"] == ["dog", "person"]
    assert first["metrics"] == {"CHAIRs": 1, "CHAIRi": 0.25, "Recall": 1.0, "Len": 0.12}
    assert second["metrics"] == {"CHAIRs": 1, "CHAIRi": 1.0, "Recall": 0.0, "Len": 0.06}
    assert third["metrics"] == {"CHAIRs": 0, "CHAIRi": 0.0, "Recall": 0.0, "Len": 0.02}


def test_nothing_mentioned_divides_by_nothing() -> None:
    values = ScoredArm("x", score([Caption(3, "")], TRUTH, LEXICON)).values()

    assert values == pytest.approx(
        {"CHAIRs": 0.0, "CHAIRi": nan, "Recall": nan, "Len": 0.0}, nan_ok=True
    )
    assert in_json(values) == {"CHAIRs": 0.0, "CHAIRi": None, "Recall": None, "Len": 0.0}


def test_captions_without_objects_are_counted_and_not_scored_as_perfect() -> None:
    arm = ScoredArm("x", score(CAPTIONS, TRUTH, LEXICON))

    assert arm.without_objects() == 1
    assert ScoredArm("x", arm.captions[2:]).without_objects() == 1
    assert ScoredArm("x", arm.captions[:2]).without_objects() == 0


def test_pictures_without_ground_truth_are_named() -> None:
    captions = [Caption(i, "a dog") for i in (1, *range(90, 97))]

    with pytest.raises(
        EvaluationError,
        match=r"the ground truth lacks 7 of 8 pictures: "
        r"90, 91, 92, 93, 94, \.\.\.; pass the ground truth",
    ):
        score(captions, TRUTH, LEXICON)


def test_intervals_hold_the_values() -> None:
    arm = ScoredArm("x", score(CAPTIONS, TRUTH, LEXICON))

    for name, found in arm.intervals.items():
        assert found.value == arm.values()[name]
        assert found.low <= found.value <= found.high


@settings(deadline=None)
@given(st.permutations(range(3)))
def test_the_order_of_captions_does_not_matter(order: list[int]) -> None:
    shuffled = ScoredArm("x", score([CAPTIONS[i] for i in order], TRUTH, LEXICON))
    straight = ScoredArm("x", score(CAPTIONS, TRUTH, LEXICON))

    assert shuffled.values() == pytest.approx(straight.values())


def test_metrics_work_on_many_resamples_at_once() -> None:
    counts = ScoredArm("x", score(CAPTIONS, TRUTH, LEXICON)).counts()  # (N, C)
    weights = np.array([[1, 1, 1], [0, 0, 3], [2, 1, 0]])  # (R, N)

    together = metrics((weights @ counts).T)  # (M, R)

    for at, row in enumerate(weights):
        np.testing.assert_array_equal(together[:, at], metrics(row @ counts))


@pytest.mark.parametrize(
    ("max_words", "plain", "finished"), [(48, 0.190, 0.134), (64, 0.314, 0.232), (96, 0.434, 0.410)]
)
def test_cut_captions_score_as_measured_on_operas(
    shared: Path, max_words: int, plain: float, finished: float
) -> None:
    """CHAIRs of OPERA's greedy LLaVA captions, cut; measured with the reference scorer.

    The lexicon may differ from that by as much as the tolerance that it is held to.
    """
    truth = read(shared / "coco/chair_ground_truth.json.gz").objects
    path = shared / "captions/llava-1.5/greedy.jsonl"
    (captions,) = read_captions(path, image_id_key="image_id", caption_key="caption").values()
    cut = [Caption(c.image_id, cut_words(c.text, max_words)) for c in captions]
    whole = [Caption(c.image_id, drop_unfinished(c.text)) for c in cut]

    found = [ScoredArm("x", score(c, truth, LEXICON)).values()["CHAIRs"] for c in (cut, whole)]

    assert found == pytest.approx([plain, finished], abs=0.004)
