"""The result that `chair.py` and `chair_eval.py --score` share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.files.answers import Caption
from eval.tasks.chair.output import ChairResult, score_captions
from eval.tasks.chair.scoring import METRICS, ScoreSettings

IDS = range(1, 21)
LONG = "vcd+eah@alpha=0.5,layers=2,sink_threshold=0.0008,receivers=8"
TEXTS = {
    "baseline": "A man and his dog. A kite flies over all of them.",
    LONG: "A man and his dog.",
    LONG.replace("8", "9"): "A man, his dog and a kite.",
}


@pytest.fixture
def settings(tmp_path: Path) -> ScoreSettings:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({str(i): ["dog", "person"] for i in IDS}))
    return ScoreSettings(ground_truth=path, analyzer="lexicon")


def score(settings: ScoreSettings, *names: str) -> ChairResult:
    source = settings.ground_truth
    assert source is not None
    captions = {name: [Caption(i, TEXTS[name]) for i in IDS] for name in names}
    return score_captions(captions, settings, source=source)


def test_all_arms_are_compared_with_the_baseline(settings: ScoreSettings) -> None:
    result = score(settings, *TEXTS)

    assert [arm.method for arm in result.arms] == list(TEXTS)
    assert [(one.method, one.baseline) for one in result.comparisons] == [
        (name, "baseline") for name in list(TEXTS)[1:]
    ]
    content = result.as_dict()
    assert content["method"] == LONG
    assert [row["method"] for row in content["other_arms"]] == ["baseline", LONG.replace("8", "9")]


def test_holm_is_stated_where_several_arms_are_compared(settings: ScoreSettings) -> None:
    both, one = (" ".join(score(settings, *list(TEXTS)[:n]).text().split()) for n in (3, 2))

    assert "free of hallucinated objects; McNemar's p is Holm-adjusted for 2 comparisons" in both
    assert "gained, lost: captions that only the method, or only the other, keeps free of" in one
    assert "Holm" not in one
    found = score(settings, *TEXTS).as_dict()["comparisons"]
    tests = [comparison["mcnemar"] for comparison in found]
    p_values = [test["p_value"] for test in tests]
    assert p_values[0] < p_values[1] == 1
    assert [test["p_holm"] for test in tests] == pytest.approx([2 * p_values[0], 1])


def test_an_interval_of_captions_that_are_all_alike_is_wilsons_and_said_so(
    settings: ScoreSettings,
) -> None:
    result = score(settings, "baseline")

    interval = result.arms[0].intervals["CHAIRs"]
    assert interval.value == interval.high == 1
    assert interval.low == pytest.approx(20 / (20 + 1.959964**2))
    assert (
        "note: all captions of baseline have the same CHAIRs, CHAIRi, Recall, so these intervals "
        "are Wilson's, over pictures" in " ".join(result.text().split())
    )


def test_captions_without_objects_make_chair_i_no_surer(settings: ScoreSettings) -> None:
    captions = {"few": [Caption(i, "A dog." if i < 5 else "Grass.") for i in IDS]}
    assert settings.ground_truth is not None

    found = score_captions(captions, settings, source=settings.ground_truth).arms[0].intervals

    square = 1.959964**2
    assert found["CHAIRi"].high == pytest.approx(square / (4 + square))
    assert found["CHAIRs"].high == pytest.approx(square / (20 + square))


def test_differences_that_are_all_alike_have_wilsons_interval_and_say_so(
    settings: ScoreSettings,
) -> None:
    text = " ".join(score(settings, *list(TEXTS)[:1]).text().split())
    same = {name: [Caption(i, "A dog." if i > 4 else "A kite.") for i in IDS]
            for name in ("baseline", "eah")}  # fmt: skip
    assert settings.ground_truth is not None
    compared = score_captions(same, settings, source=settings.ground_truth).text()

    assert "differs from" not in text
    assert (
        "note: eah differs from baseline equally on all pictures in CHAIRs, CHAIRi, Recall, so "
        "these intervals are Wilson's, over pictures" in " ".join(compared.split())
    )


def test_the_number_of_captions_without_objects_is_said_by_arm(settings: ScoreSettings) -> None:
    captions = {
        "some": [Caption(i, "A dog." if i > 4 else "Grass.") for i in IDS],
        "all": [Caption(i, "A dog.") for i in IDS],
    }
    assert settings.ground_truth is not None

    text = score_captions(captions, settings, source=settings.ground_truth).text()

    assert "note: 4 of 20 captions of some mention no object: CHAIRi ignores them" in text
    assert "of all mention no object" not in text


@pytest.mark.parametrize("name", ["baseline", LONG])
def test_one_arm_is_compared_with_nothing(settings: ScoreSettings, name: str) -> None:
    result = score(settings, name)

    assert result.comparisons == ()
    assert result.as_dict()["method"] == name
    assert "McNemar" not in result.text()


def test_tables_fit_a_terminal_and_number_the_arms_alike(settings: ScoreSettings) -> None:
    text = score(settings, *TEXTS).text()

    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, tables)) <= 100
    numbers = dict.fromkeys(line.split("|")[1].strip() for line in tables)
    assert {"[2]", "[3]"} <= set(numbers)
    assert not {LONG, LONG.replace("8", "9")} & set(numbers)
    assert text.count("[3] ") >= 2
    assert text.count(f"[2] {LONG}\n") == 2
    assert [line.split("|")[2].strip() for line in tables[-4:]] == list(METRICS)
    assert (
        " ".join(text.split()).count("captions alone could explain the gain in CHAIRs and CHAIRi")
        == 1
    )
    assert max(map(len, text.splitlines()[1:-1])) <= 100


def test_the_number_of_captions_stands_in_the_table_where_it_differs(
    settings: ScoreSettings,
) -> None:
    captions = {"one": [Caption(1, "A dog.")], "two": [Caption(i, "A dog.") for i in IDS]}
    assert settings.ground_truth is not None

    result = score_captions(captions, settings, source=settings.ground_truth)

    rows = [line for line in result.text().splitlines() if line.startswith("|")]
    assert [row.split("|")[-2].strip() for row in rows] == ["captions", "-------:", "1", "20"]
