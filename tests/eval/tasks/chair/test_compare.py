"""Two arms side by side: which is better, how surely, and whether it only says less."""

from __future__ import annotations

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Caption
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.compare import DIFFERENCES, compare
from eval.tasks.chair.scoring import METRICS, ScoredArm, score

LEXICON = choose("lexicon")
IDS = range(40)
TRUTH = {i: frozenset({"dog", "person"}) for i in IDS}


def arm(name: str, texts: dict[int, str]) -> ScoredArm:
    return ScoredArm(name, score([Caption(i, t) for i, t in texts.items()], TRUTH, LEXICON))


LONG = arm("long", {i: "A dog and a man. " + ("There is a kite" if i % 2 else "There is grass")
                    for i in IDS})  # fmt: skip
SHORT = arm("short", {i: "A dog and a man." for i in IDS})


def test_a_gain_that_the_baseline_has_at_that_length_is_explained() -> None:
    found = compare(SHORT, LONG, LEXICON)

    assert found.gains() == ["CHAIRs", "CHAIRi"]
    assert found.differences["CHAIRs"].value == -0.5
    assert found.cut is not None
    assert found.cut.max_words == 5
    assert found.cut.values["CHAIRs"] == 0
    assert found.length_sentence() == (
        "short's captions are shorter: cut at 5 words, to the same mean length, long scores CHAIRs "
        "0.0, CHAIRi 0.0, Recall 100.0; the change in length alone could explain the gain in "
        "CHAIRs and CHAIRi"
    )


def test_a_gain_at_the_front_of_the_caption_is_not_explained_by_length() -> None:
    early = arm("early", {i: "A kite and a dog, a man. More words follow here." for i in IDS})

    found = compare(SHORT, early, LEXICON)

    assert found.cut is not None
    assert (found.length_sentence() or "").endswith(
        "length alone does not explain the gain in CHAIRs and CHAIRi"
    )


def test_no_word_of_length_where_the_method_is_longer_or_the_same() -> None:
    assert compare(LONG, SHORT, LEXICON).cut is None
    assert compare(SHORT, SHORT, LEXICON).cut is None
    assert compare(LONG, SHORT, LEXICON).length_sentence() is None


def test_mcnemar_counts_captions_free_of_hallucinations() -> None:
    test = compare(SHORT, LONG, LEXICON).test

    assert (test.gained, test.lost) == (20, 0)
    assert test.p_value == pytest.approx(2 / 2**20)


def test_arms_are_paired_by_picture_not_by_place() -> None:
    texts = {i: c.text for i, c in zip(IDS, LONG.captions, strict=True)}
    reversed_arm = arm("reversed", dict(reversed(texts.items())))

    found = compare(reversed_arm, LONG, LEXICON)

    assert (found.test.gained, found.test.lost) == (0, 0)
    assert all(d.value == d.low == d.high == 0 for d in found.differences.values())


def test_arms_of_other_pictures_are_refused() -> None:
    part = ScoredArm("part", SHORT.captions[3:])

    with pytest.raises(EvaluationError, match="part has no caption of 3 pictures that long has: 0"):
        compare(part, LONG, LEXICON)
    with pytest.raises(EvaluationError, match="part has no caption of 3 pictures that long has: 0"):
        compare(LONG, part, LEXICON)


def test_the_table_and_the_file_say_the_same() -> None:
    found = compare(SHORT, LONG, LEXICON)

    row = found.as_dict()
    assert [len(cells) for cells in found.rows()] == [len(DIFFERENCES)] * 4
    assert [cells[:2] for cells in found.rows()] == [["short", name] for name in METRICS]
    assert found.rows()[0][2:] == ["-50.0 (-65.0 to -35.0)", "1.9e-06 (20, 0)"]
    assert {cells[3] for cells in found.rows()[1:]} == {""}
    assert row["differences"]["CHAIRs"]["value"] == -0.5
    assert row["mcnemar"]["gained"] == 20
    assert row["cut_baseline"]["max_words"] == 5
