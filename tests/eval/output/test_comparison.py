"""Two runs side by side: paired where they asked the same, else with the reason why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.errors import EvaluationError
from eval.evaluate import task_class
from eval.files.answers import Item
from eval.output.comparison import compare_runs, setting_notes, why_unpaired
from eval.output.report import Report
from eval.output.run_report import score
from eval.run.recorded import RecordedRun, read_run
from eval.tasks.base import Task
from tests.eval.small_runs import (
    OLD_RUNS,
    SETTINGS,
    always_yes,
    questions,
    renamed,
    right,
    write_run,
)


def pope(settings: dict[str, Any]) -> Task:
    kind = task_class("pope")
    return kind(kind.settings_class(), kind.protocol_of(settings["protocol"], "llava-1.5"))


def right_about_two(item: Item) -> str:
    """Answer as a model that is right about pictures 0 and 1, and says yes about others."""
    return right(item) if item.image in ("0.jpg", "1.jpg") else "Yes."


@pytest.fixture
def first(tmp_path: Path) -> RecordedRun:
    return read_run(
        write_run(tmp_path / "a-1111", {"baseline": always_yes, "eah": right_about_two})
    )


@pytest.fixture
def second(tmp_path: Path) -> RecordedRun:
    arms = {"baseline": right_about_two, "eah": right, "vcd": always_yes}
    return read_run(write_run(tmp_path / "b-2222", arms, weights="sha256:2", model="llava-1.5"))


def compared(first: RecordedRun, second: RecordedRun, reference: str | None = None) -> Report:
    return compare_runs(pope(SETTINGS), first, second, reference)


def pairs(report: Report) -> set[tuple[str, str]]:
    return {(one.arm, one.reference) for one in report.grouped.differences}


def test_arms_are_compared_with_their_twins_and_others_with_the_baseline(
    first: RecordedRun, second: RecordedRun
) -> None:
    report = compared(first, second)

    assert [one.arm for one in report.grouped.results] == [
        "A:baseline", "A:eah", "B:baseline", "B:eah", "B:vcd",
    ]  # fmt: skip
    assert pairs(report) == {
        ("A:eah", "A:baseline"),
        ("B:baseline", "A:baseline"),
        ("B:eah", "A:eah"),
        ("B:vcd", "A:baseline"),
    }


def test_differences_are_paired_by_question(first: RecordedRun, second: RecordedRun) -> None:
    differences = {(d.arm, d.reference): d for d in compared(first, second).grouped.differences}

    one = differences["B:baseline", "A:baseline"]
    assert one.numbers["accuracy"].value == pytest.approx(2 / 6)
    assert one.test is not None
    assert (one.test.gained, one.test.lost) == (2, 0)
    other = differences["B:vcd", "A:baseline"]
    assert other.numbers["accuracy"].value == 0
    assert other.numbers["accuracy"].low == -other.numbers["accuracy"].high < 0


def test_the_order_of_answers_does_not_matter(first: RecordedRun, tmp_path: Path) -> None:
    arms = {"baseline": always_yes, "eah": right_about_two}
    turned = read_run(write_run(tmp_path / "c", arms, questions()[::-1]))

    assert why_unpaired(first, turned) is None
    for one in compared(first, turned).grouped.differences:
        if one.arm.startswith("B"):
            assert one.numbers["accuracy"].value == 0
            assert one.test is not None
            assert (one.test.gained, one.test.lost) == (0, 0)


@pytest.mark.parametrize(
    ("reference", "meant"),
    [("eah", "A:eah"), ("A:eah", "A:eah"), ("B:eah", "B:eah"), ("vcd", "B:vcd")],
)
def test_a_reference_is_an_arm_of_either_run(
    first: RecordedRun, second: RecordedRun, reference: str, meant: str
) -> None:
    report = compared(first, second, reference)

    assert {other for _, other in pairs(report)} == {meant}
    assert len(pairs(report)) == 4


def test_an_unknown_reference_is_one_sentence(first: RecordedRun, second: RecordedRun) -> None:
    with pytest.raises(EvaluationError, match=r"--reference pai is an arm of neither run .A:base"):
        compared(first, second, "pai")


def test_without_a_baseline_twins_are_still_compared(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / n, {"eah": right, "vcd": right})) for n in "ab"]

    assert pairs(compared(runs[0], runs[1])) == {("B:eah", "A:eah"), ("B:vcd", "A:vcd")}


def test_what_eah_did_is_told_for_both(first: RecordedRun, second: RecordedRun) -> None:
    layers = compared(first, second).layers

    assert {name for name, found in layers.items() if found} == {"A:eah", "B:eah"}


def test_a_run_of_other_code_or_model_is_paired(first: RecordedRun, second: RecordedRun) -> None:
    assert why_unpaired(first, second) is None


@pytest.mark.parametrize(
    "change", [{"question": "Another?"}, {"image": "9.jpg"}, {"label": "yes"}, {"id": 77}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_one_other_question_forbids_pairing(
    first: RecordedRun, tmp_path: Path, change: dict[str, Any]
) -> None:
    other = read_run(write_run(tmp_path / "c", {"eah": right}, renamed(questions(), **change)))

    assert why_unpaired(first, other) == (
        "the questions differ: 1 of A's 6 are not among B's 6 in the same form; ask both models "
        "the same questions"
    )


def test_more_questions_forbid_pairing(first: RecordedRun, tmp_path: Path) -> None:
    more = read_run(write_run(tmp_path / "c", {"eah": right}, questions(4)))

    assert "0 of A's 6 are not among B's 8" in str(why_unpaired(first, more))
    assert "2 of A's 8 are not among B's 6" in str(why_unpaired(more, first))


def test_other_pictures_under_the_same_names_forbid_pairing(
    first: RecordedRun, tmp_path: Path
) -> None:
    other = read_run(write_run(tmp_path / "c", {"eah": right}, pictures="bb"))

    assert why_unpaired(first, other) == "the pictures have the same names but different contents"


def test_pictures_of_old_runs_are_not_compared(first: RecordedRun) -> None:
    old = read_run(next((OLD_RUNS / "pope/tiny-llava").iterdir()))
    new = replace(old, old=False, settings={**old.settings, "pictures": "another"})

    assert why_unpaired(old, new) is None
    assert "the questions differ" in str(why_unpaired(first, old))


def test_notes_say_what_else_differs(
    first: RecordedRun, second: RecordedRun, tmp_path: Path
) -> None:
    decoding = {**SETTINGS["decoding"], "num_beams": 5}  # type: ignore[dict-item]
    third = read_run(write_run(tmp_path / "c", {"eah": right}, decoding=decoding, dtype="float16"))

    assert setting_notes(first, second) == [
        f"A: {first.path}",
        f"B: {second.path}",
        "model: tiny-llava | llava-1.5",
        "weights: sha256:1 | sha256:2",
    ]
    assert setting_notes(first, third)[2:] == [
        "dtype: float32 | float16",
        "decoding: num_beams 1 | 5",
    ]
    assert setting_notes(first, first)[2:] == []


def test_notes_say_that_other_code_answered(first: RecordedRun, tmp_path: Path) -> None:
    other = read_run(write_run(tmp_path / "c", {"eah": right}))
    arm = other.arms["eah"]
    changed = replace(other, arms={"eah": replace(arm, info={**arm.info, "code": "other"})})

    assert setting_notes(first, other)[2:] == []
    assert setting_notes(first, changed)[2:] == [
        "the answers come from different code versions (see arm.json of each arm)"
    ]


def test_numbers_are_those_of_each_run_alone(first: RecordedRun, second: RecordedRun) -> None:
    together = {one.arm: one for one in compared(first, second).grouped.results}
    for mark, run in (("A", first), ("B", second)):
        for one in score(pope(SETTINGS), run, None).grouped.results:
            values = [
                [number.value, number.low, number.high]
                for number in (
                    *one.numbers.values(),
                    *together[f"{mark}:{one.arm}"].numbers.values(),
                )
            ]
            np.testing.assert_array_equal(values[: len(values) // 2], values[len(values) // 2 :])
