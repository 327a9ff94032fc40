"""Reports: hand-computed numbers, plain loops, who is compared with whom, and the width."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from eval.errors import EvaluationError
from eval.evaluate import task_class
from eval.files.answers import Answer, Finding, Item
from eval.output.exports import results_csv, results_latex
from eval.output.layer_summary import LayerSummary
from eval.output.report import (
    Report,
    reference_arms,
    report_of,
)
from eval.output.tables import difference_table, primary_table, result_table, wide_table
from eval.run.costs import ArmCost, BatchCost
from eval.stats.grouped import Difference, Grouped, Result, Significance
from eval.stats.intervals import Interval
from eval.stats.permutation import PermutationTest
from eval.tasks.base import TASKS, TaskProtocol
from eval.tasks.yes_no.settings import YesNoSettings
from eval.tasks.yes_no.task import YesNoTask
from tests.eval.tables import table_rows, widest_table_line


class Quiz(YesNoTask):
    """A benchmark of two parts with their mean."""

    name = "quiz"
    title = "Quiz"
    protocols: ClassVar = {("", "opera"): TaskProtocol(4, parser="strict")}

    def items(self) -> list[Item]:
        return []

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {"mean": parts} if len(parts) > 1 else {}


QUIZ = Quiz(YesNoSettings(), Quiz.protocols["", "opera"])


def answers(said: Mapping[str, str]) -> list[Answer]:
    """Return answers by part: a letter a question, right answers yes, no, yes, no, ...

    Two questions in a row are about one picture, which all parts ask about.
    """
    words = {"y": "Yes, it is.", "n": "No.", "?": "Perhaps."}
    return [
        Answer(
            Item(at, f"{at // 2}.jpg", f"{part}, question {at}", ("yes", "no")[at % 2], part),
            words[letter],
        )
        for part, letters in said.items()
        for at, letter in enumerate(letters)
    ]


# By hand. Right answers: y n y n y n y n.
BASELINE = {"a": "ynynynyn", "b": "yyyyyyyy"}
EAH = {"a": "ynynynny", "b": "ynyyyy?n"}


def by_hand(**more: Any) -> Report:
    return report_of(QUIZ, {"baseline": answers(BASELINE), "eah": answers(EAH)}, **more)


def test_numbers_computed_by_hand() -> None:
    found = {(r.arm, r.part): r for r in by_hand().grouped.results}

    values = {key: {n: i.value for n, i in r.numbers.items()} for key, r in found.items()}
    assert values["baseline", "a"] == {
        "accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "yes_ratio": 0.5, "unknown_rate": 0,
    }  # fmt: skip
    assert values["baseline", "b"] == {
        "accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3),
        "yes_ratio": 1, "unknown_rate": 0,
    }  # fmt: skip
    # a: 3 of 4 yes, 3 of 4 no. b: yes y y ?, no n y y n.
    assert values["eah", "a"] == {
        "accuracy": 0.75, "precision": 0.75, "recall": 0.75, "f1": 0.75, "yes_ratio": 0.5,
        "unknown_rate": 0,
    }  # fmt: skip
    assert values["eah", "b"] == {
        "accuracy": 0.625, "precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3),
        "yes_ratio": 0.625, "unknown_rate": 0.125,
    }  # fmt: skip
    assert values["eah", "mean"]["accuracy"] == (0.75 + 0.625) / 2
    assert values["eah", "mean"]["f1"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert [(r.answers, r.is_total) for key, r in found.items() if key[0] == "eah"] == [
        (8, False), (8, False), (16, True),
    ]  # fmt: skip


def test_differences_computed_by_hand() -> None:
    found = {d.part: d for d in by_hand().grouped.differences}

    assert {(d.arm, d.reference) for d in found.values()} == {("eah", "baseline")}
    assert found["a"].numbers["accuracy"].value == -0.25
    assert found["b"].numbers["accuracy"].value == 0.125
    assert found["mean"].numbers["accuracy"].value == -0.0625
    # a: the last two were right. b: two negatives are right now, one positive is unknown.
    # In eighths by picture, a: 0, 0, 0, -2. b: +1, 0, 0, 0: the positive that is unknown now and
    # the negative that is right now are of the same picture.
    assert found["a"].test == Significance(PermutationTest(1.0, 4, 1, True), 0, 2)
    assert found["b"].test == Significance(PermutationTest(1.0, 4, 1, True), 2, 1)
    # Their mean: +1 and -2; whatever the signs, the sum is 1 or 3.
    assert found["mean"].test == Significance(PermutationTest(1.0, 4, 2, True), 2, 3, 1.0)


def test_the_result_table_cell_by_cell() -> None:
    header, rows = result_table(by_hand())

    assert header == ["arm", "part", "accuracy (95 %)", "F1", "yes %", "vs baseline (95 %)"]
    cells = [[cell.split(" (")[0] for cell in row] for row in rows]
    assert cells == [
        ["baseline", "a", "100.00", "100.00", "50.00", ""],
        ["baseline", "b", "50.00", "66.67", "100.00", ""],
        ["baseline", "mean", "75.00", "83.33", "75.00", ""],
        ["eah", "a", "75.00", "75.00", "50.00", "-25.00"],
        ["eah", "b", "62.50", "66.67", "62.50", "+12.50"],
        ["eah", "mean", "68.75", "70.83", "56.25", "-6.25"],
    ]
    # Wilson's of 4 of 4 pictures, and of half of 4.
    assert rows[0][2] == "100.00 (51.0..100.0)"
    assert rows[1][2] == "50.00 (15.0..85.0)"


def test_the_primary_comparison_stands_first() -> None:
    header, rows = primary_table(by_hand())

    assert header == ["primary comparison", "accuracy, mean (95 %)", "p", "gained", "lost"]
    (row,) = rows
    assert row[0] == "eah - baseline"
    assert row[1].startswith("-6.25 (")
    assert row[2:] == ["1", "2", "3"]
    text = by_hand().text()
    assert table_rows(text)[0] == header
    assert "(all flips where up to 20 differ, else 100,000 random\n  ones)\n" in text
    assert "Holm" not in text


def test_several_primary_comparisons_are_adjusted_and_said_to_be() -> None:
    report = report_of(QUIZ, random_arms(7, ["baseline", "eah", "vcd", "vcd+eah"], 60))

    _, rows = primary_table(report)

    assert [row[0] for row in rows] == [
        "eah - baseline", "vcd - baseline", "vcd+eah - baseline", "vcd+eah - vcd",
    ]  # fmt: skip
    primary = report.grouped.primary_differences()
    assert [row[2] for row in rows] == [f"{d.test.p_holm:.2g}" for d in primary if d.test]
    text = report.text()
    assert "\n  ones), Holm-adjusted for 4 comparisons\n" in text
    # Only the rate of unknown answers, which --wide prints, is alike everywhere.
    assert "Wilson" not in text
    assert not any(row[-1] == "lost" for row in table_rows(text)[6:])


def test_an_arm_with_answers_left_out_is_compared_without_a_p_value() -> None:
    quiz = Quiz(YesNoSettings(parser="substring"), Quiz.protocols["", "opera"])
    said = {"baseline": BASELINE, "eah": EAH, "vcd": BASELINE | {"a": "nnynynyn"}}
    report = report_of(quiz, {name: answers(of) for name, of in said.items()})

    rows = primary_table(report)[1]

    assert [row[0] for row in rows] == ["eah - baseline", "vcd - baseline"]
    assert [row[2:] for row in rows] == [["n/a"] * 3, ["1", "0", "1"]]
    assert "p n/a: the parser drops answers, so the arms have different" in report.text()
    for wide in (False, True):
        assert "Holm" not in report.text(wide=wide)
    assert ["eah - baseline", "mean"] in [row[:2] for row in table_rows(report.text(wide=True))]


def test_wilsons_interval_is_of_the_pictures_that_a_number_is_of() -> None:
    """One arm says yes about two pictures of ten only, and rightly, which shows little."""
    said = {"baseline": "ynynynynynynynynynyn", "eah": "ynynnnnnnnnnnnnnnnnn"}
    report = report_of(QUIZ, {name: answers({"a": of, "b": of}) for name, of in said.items()})

    found = {(r.arm, r.part): r.numbers["precision"] for r in report.grouped.results}
    difference = report.grouped.differences[0].numbers["precision"]

    square = 1.959964**2
    for part in ("a", "mean"):
        assert found["baseline", part].low == pytest.approx(10 / (10 + square))
        assert found["eah", part].low == pytest.approx(2 / (2 + square))
    assert difference.high == pytest.approx(square / (2 + square))


def test_what_is_nothing_of_nothing_is_not_a_number() -> None:
    arms = {"baseline": answers({"a": "nnnn"}), "eah": answers({"a": "ynnn"})}
    report = report_of(QUIZ, arms)

    rows = {row[0]: row for row in wide_table(report)[1]}

    assert rows["baseline"][4] == "n/a"
    content = report.as_dict()
    assert content["results"][0]["numbers"]["precision"]["value"] is None
    assert content["parsers"]["strict"]["baseline"]["a"]["precision"] is None
    assert "NaN" not in json.dumps(content)


def random_arms(seed: int, names: Sequence[str], pictures: int = 30) -> dict[str, list[Answer]]:
    rng = random.Random(seed)
    return {
        name: answers(
            {p: "".join(rng.choices("yn?", (6, 5, 1), k=2 * pictures)) for p in ("a", "b")}
        )
        for name in names
    }


def looped(arm: Sequence[Answer], part: str) -> dict[str, float]:
    """Compute the metrics of one part answer by answer."""
    total = right = said_yes = true_yes = positives = unknown = 0
    for answer in arm:
        if answer.item.part != part:
            continue
        said = {"Y": "yes", "N": "no", "P": None}[answer.text[0]]
        total += 1
        right += said == answer.item.label
        said_yes += said == "yes"
        unknown += said is None
        positives += answer.item.label == "yes"
        true_yes += said == answer.item.label == "yes"
    precision, recall = true_yes / said_yes, true_yes / positives
    return {
        "accuracy": right / total,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": said_yes / total,
        "unknown_rate": unknown / total,
    }


def test_numbers_differences_and_means_are_those_of_plain_loops() -> None:
    arms = random_arms(5, ["baseline", "eah", "vcd", "vcd+eah"])

    grouped = report_of(QUIZ, arms).grouped

    expected = {(arm, part): looped(of, part) for arm, of in arms.items() for part in ("a", "b")}
    for arm in arms:
        one, two = expected[arm, "a"], expected[arm, "b"]
        expected[arm, "mean"] = {name: (one[name] + two[name]) / 2 for name in one}
    for result in grouped.results:
        values = {name: number.value for name, number in result.numbers.items()}
        assert values == pytest.approx(expected[result.arm, result.part], abs=1e-12)
    assert [(d.arm, d.reference, d.part) for d in grouped.differences] == [
        (arm, reference, part)
        for arm, reference in [("eah", "baseline"), ("vcd", "baseline"), ("vcd+eah", "baseline"),
                               ("vcd+eah", "vcd")]
        for part in ("a", "b", "mean")
    ]  # fmt: skip
    for d in grouped.differences:
        first, second = expected[d.reference, d.part], expected[d.arm, d.part]
        values = {name: number.value for name, number in d.numbers.items()}
        assert values == pytest.approx({n: second[n] - first[n] for n in first}, abs=1e-12)
        gained = lost = 0
        for before, after in zip(arms[d.reference], arms[d.arm], strict=True):
            if d.part in (before.item.part, "mean"):
                was, now = QUIZ.right(before), QUIZ.right(after)
                gained, lost = gained + (now and not was), lost + (was and not now)
        assert d.test is not None
        assert (d.test.gained, d.test.lost) == (gained, lost)


def test_intervals_are_those_of_a_plain_bootstrap_over_pictures() -> None:
    arms = random_arms(6, ["baseline", "eah"], pictures=40)
    rights: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for arm, of in arms.items():
        for answer in of:
            rights[arm, answer.item.part][answer.item.image] += QUIZ.right(answer)
    names = sorted(rights["eah", "a"])
    share = {key: np.array([found[n] / 2 for n in names]) for key, found in rights.items()}
    drawn = np.random.default_rng(9).integers(0, len(names), (20_000, len(names)))

    def interval(per_picture: Any) -> list[float]:
        means = per_picture[drawn].mean(axis=1)
        return [float(end) for end in np.quantile(means, [0.025, 0.975])]

    grouped = report_of(QUIZ, arms).grouped

    for result in grouped.results:
        parts = ("a", "b") if result.is_total else (result.part,)
        own = sum(share[result.arm, part] for part in parts) / len(parts)
        number = result.numbers["accuracy"]
        assert [number.low, number.high] == pytest.approx(interval(own), abs=0.013)
    for one in grouped.differences:
        parts = ("a", "b") if one.part == "mean" else (one.part,)
        own = sum(share["eah", p] - share["baseline", p] for p in parts) / len(parts)
        number = one.numbers["accuracy"]
        assert [number.low, number.high] == pytest.approx(interval(own), abs=0.013)


# Who is compared with whom.


@pytest.mark.parametrize(
    ("arms", "reference", "expected"),
    [
        (["baseline", "eah"], None, {"eah": ["baseline"]}),
        (["eah", "vcd"], None, {}),
        (["vcd", "vcd+eah"], None, {"vcd+eah": ["vcd"]}),
        (
            ["baseline", "vcd", "vcd+eah"],
            None,
            {"vcd": ["baseline"], "vcd+eah": ["baseline", "vcd"]},
        ),
        (
            ["baseline", "eah", "vcd", "vcd+eah"],
            "eah",
            {"baseline": ["eah"], "vcd": ["eah"], "vcd+eah": ["eah", "vcd"]},
        ),
        (["baseline", "vcd", "vcd+eah"], "vcd", {"baseline": ["vcd"], "vcd+eah": ["vcd"]}),
        (["baseline", "vcd", "vcd+eah"], "vcd+eah",
         {"baseline": ["vcd+eah"], "vcd": ["vcd+eah"]}),
        (
            ["baseline", "vcd@alpha=0.5", "vcd", "vcd+eah@alpha=0.5,layers=2"],
            None,
            {
                "vcd@alpha=0.5": ["baseline"],
                "vcd": ["baseline"],
                "vcd+eah@alpha=0.5,layers=2": ["baseline", "vcd@alpha=0.5"],
            },
        ),
        # Answers from elsewhere may have any name.
        (["baseline", "GPT-4V"], None, {"GPT-4V": ["baseline"]}),
    ],
)  # fmt: skip
def test_each_arm_is_compared_with_the_reference_and_x_eah_with_x(
    arms: list[str], reference: str | None, expected: dict[str, list[str]]
) -> None:
    assert reference_arms(arms, reference) == expected


def test_a_reference_that_is_no_arm_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"--reference vcd is not an arm of this run \(base"):
        by_hand(reference="vcd")


def test_another_reference_turns_the_table_round() -> None:
    header, rows = result_table(by_hand(reference="eah"))

    assert header[5] == "vs eah (95 %)"
    cells = [row[5].split(" ")[0] for row in rows]
    assert cells == ["+25.00", "-12.50", "+6.25", "", "", ""]
    assert "vs: arm minus eah" in by_hand(reference="eah").text()


def test_times_are_those_of_the_reference() -> None:
    costs = {
        "baseline": [BatchCost("1", "cpu", 10, 11, 6.0)],
        "eah": [BatchCost("1", "cpu", 10, 12, 4.0)],
    }

    text = by_hand(reference="eah", costs=costs).text()

    found = [row[:3] for row in table_rows(text) if len(row) == 4]
    assert found == [
        ["arm", "forward passes per token", "time (x eah)"],
        ["baseline", "1.10", "1.50"],
        ["eah", "1.20", "1.00"],
    ]


def test_what_is_no_percentage_is_not_called_one() -> None:
    notes = {name: extreme(name, ["baseline"], "baseline", 1.0).text().splitlines()[-1]
             for name in TASKS}  # fmt: skip

    assert notes["pope"] == "accuracy, F1: in percent"
    assert notes["mme"] == "accuracy, accuracy+: in percent"
    assert "in percent" not in notes["chair"]


def test_a_long_reference_is_named_below_the_table() -> None:
    name = "eah@layers=2,threshold=0.001"
    arms = {"baseline": answers(BASELINE), name: answers(EAH)}
    report = report_of(QUIZ, arms, reference=name, costs={arm: [] for arm in arms})

    text = report.text()

    headings = [cell for row in table_rows(text) for cell in row]
    assert {"vs reference (95 %)", "time (x reference)"} <= set(headings)
    assert f"; vs: arm minus {name}; where all pictures" in " ".join(text.split())


def test_arms_that_answer_other_questions_are_refused() -> None:
    arms = {"baseline": answers(BASELINE), "eah": answers(EAH)[:-1]}

    with pytest.raises(EvaluationError, match="baseline and eah did not answer the same questions"):
        report_of(QUIZ, arms)


# Text.


def test_the_text_has_all_tables_in_order() -> None:
    arms = random_arms(7, ["baseline", "eah", "vcd", "vcd+eah"])
    found = Finding(1, 3, 9, 64, False)
    arms = {
        name: [replace(a, findings=(found,)) for a in of] if "eah" in name else of
        for name, of in arms.items()
    }
    costs = {name: [BatchCost("1", "cpu", 10, 11, 2.0 + at, 4, 3)] for at, name in enumerate(arms)}

    blocks = report_of(QUIZ, arms, costs=costs).text().split("\n\n")

    assert blocks.pop(0).startswith("| primary comparison ")
    assert [block.split(" |")[0] for block in blocks[:4]] == [
        "| arm     ", "| arm - reference", "| arm     ", "| arm    ",
    ]  # fmt: skip
    assert [row[0] for row in table_rows(blocks[1])[1:]] == ["vcd+eah - vcd"] * 3
    assert table_rows(blocks[2]) == [
        ["arm", "forward passes per token", "time (x baseline)", "prefix cache hits"],
        ["baseline", "1.10", "1.00", "3 of 4"],
        ["eah", "1.10", "1.50", "3 of 4"],
        ["vcd", "1.10", "2.00", "3 of 4"],
        ["vcd+eah", "1.10", "2.50", "3 of 4"],
    ]
    assert table_rows(blocks[3])[1:] == [
        ["eah", "1", "120", "3: 100 %", "9.0 of 64", "0"],
        ["vcd+eah", "1", "120", "3: 100 %", "9.0 of 64", "0"],
    ]
    assert blocks[4:] == [
        "95 %: intervals from 10000 bootstrap resamples of the 30 picture(s); 120 answers per arm\n"
        "accuracy, F1: in percent; vs: arm minus baseline\n"
        "p: sign-flip permutation test over pictures (all flips where up to 20 differ, else "
        "100,000 random\n"
        "  ones), Holm-adjusted for 4 comparisons\n"
        "gained, lost: questions that only the first arm, or only the second, gets right\n"
        "note: 30 picture(s), fewer than 50: bootstrap intervals are too narrow for so few; "
        "treat the numbers\n"
        "  as preliminary"
    ]


def test_one_arm_has_no_differences_and_answers_from_elsewhere_no_costs() -> None:
    report = report_of(QUIZ, {"eah": answers(EAH)})

    header, rows = result_table(report)
    assert header == ["arm", "part", "accuracy (95 %)", "F1", "yes %"]
    assert all(len(row) == 5 for row in rows)
    table, notes = report.text().split("\n\n")
    assert len(table.splitlines()) == 5
    assert notes.splitlines()[1].startswith("accuracy, F1: in percent")
    assert report.as_dict()["costs"] == {}


def test_what_was_not_measured_is_not_available() -> None:
    costs = {"baseline": [], "eah": [BatchCost("1", "cpu", 0, 3, 2.0)]}

    text = by_hand(costs=costs).text()

    rows = [row for row in table_rows(text) if len(row) == 4][1:]
    assert rows == [["baseline", "n/a", "n/a", "n/a"], ["eah", "n/a", "n/a", "n/a"]]


def test_one_picture_has_numbers_without_intervals() -> None:
    arms = {"baseline": answers({"a": "yn"}), "eah": answers({"a": "yy"})}
    report = report_of(QUIZ, arms)

    header, rows = result_table(report)

    assert [row[2] for row in rows] == ["100.00", "50.00"]
    assert rows[1][header.index("vs baseline (95 %)")] == "-50.00"
    assert "nan" not in report.text()
    assert "nan" not in report.text(wide=True)
    content = report.as_dict()
    assert content["results"][0]["numbers"]["accuracy"] == {
        "value": 1.0, "low": None, "high": None,
    }  # fmt: skip
    assert "NaN" not in json.dumps(content)


def test_a_benchmark_of_one_part_has_no_column_of_parts() -> None:
    arms = {"baseline": answers({"": "ynyn"}), "eah": answers({"": "ynyy"})}

    text = report_of(QUIZ, arms).text()

    assert table_rows(text)[0][:2] == ["primary comparison", "accuracy (95 %)"]
    assert table_rows(text)[2][:2] == ["arm", "accuracy (95 %)"]
    assert [row[0] for row in table_rows(text)[3:]] == ["baseline", "eah"]


@pytest.mark.parametrize("tiny", [-0.00001, 0.0, 0.00001])
def test_no_difference_has_a_plus_whatever_its_sign(tiny: float) -> None:
    report = by_hand()
    zero = Interval(tiny, -0.0001, 0.0001)
    one = replace(report.grouped.differences[0], numbers={"accuracy": zero})
    grouped = replace(report.grouped, differences=[one])

    _, rows = result_table(replace(report, grouped=grouped))

    assert rows[3][5] == "+0.00 (+0.0..+0.0)"


def test_the_wide_text_has_every_number_of_the_json(wide_tables: None) -> None:
    report = report_of(QUIZ, random_arms(8, ["baseline", "vcd", "vcd+eah"]))
    content = report.as_dict()

    text = report.text(wide=True)

    rows = {(row[0], row[1]): row[2:] for row in table_rows(text.split("\n\n", 1)[1])}
    for result in content["results"]:
        n, *cells = rows[result["arm"], result["part"]]
        assert n == str(result["n"])
        assert cells == [
            f"{100 * m['value']:.2f} ({100 * m['low']:.1f}..{100 * m['high']:.1f})"
            for m in result["numbers"].values()
        ]
    assert len(content["differences"]) == 9
    for one in content["differences"]:
        *cells, p, gained, lost = rows[f"{one['arm']} - {one['reference']}", one["part"]]
        assert [float(cell.split(" ")[0]) for cell in cells] == pytest.approx(
            [100 * m["value"] for m in one["numbers"].values()], abs=0.0051
        )
        test = one["permutation_test"]
        assert (int(gained), int(lost)) == (test["gained"], test["lost"])
        assert float(p) == pytest.approx(test.get("p_holm", test["p_value"]), rel=0.06)
    header = wide_table(report)[0]
    assert header[:3] == ["arm", "part", "n"]
    assert len(header) == 3 + len(QUIZ.metrics)
    assert difference_table(report, wide=True)[0][-3:] == ["p", "gained", "lost"]
    assert "vs:" not in text


def test_csv_and_latex_hold_the_same_numbers() -> None:
    report = by_hand()
    content = report.as_dict()

    rows = list(csv.DictReader(io.StringIO(results_csv(report))))

    assert [(row["arm"], row["part"], int(row["n"])) for row in rows] == [
        (r["arm"], r["part"], r["n"]) for r in content["results"]
    ]
    for row, result in zip(rows, content["results"], strict=True):
        for name, number in result["numbers"].items():
            ends = [float(row[f"{name}{end}"]) for end in ("", "_low", "_high")]
            assert ends == [number["value"], number["low"], number["high"]]
    latex = results_latex(report)
    assert r"arm & part & accuracy (95 \%) & F1 & yes \% & vs baseline (95 \%) \\" in latex
    assert r"baseline & a & 100.00 (51.0 to 100.0) & 100.00 & 50.00 &  \\" in latex


# The width, at the worst that numbers and names can be.

LONG = [
    "vcd+eah@alpha=0.5,layers=2,threshold=0.0008,receivers=8,min_density=0.35",
    "eah@layers=0-31,threshold=0.00012345,rule=released_code,head=31,preset=scale-free",
    "opera+eah@scale_factor=50,opera.threshold=15,num_attn_candidates=5,penalty_weights=1,layers=2",
]
PARTS = {
    "pope": (["random", "popular", "adversarial"], ["mean"]),
    "mme": (["numerical_calculation", "commonsense_reasoning"], ["perception", "hallucination"]),
    "chair": ([""], []),
    "repope": (["random", "popular", "adversarial"], ["mean"]),
    "pope-aokvqa": (["random", "popular", "adversarial"], ["mean"]),
    "pope-gqa": (["random", "popular", "adversarial"], ["mean"]),
    "amber-discriminative": (["existence", "relation"], ["all", "attribute"]),
    "hallusionbench": (["VD_illusion", "VS_chart"], ["all", "VD", "VS"]),
    "amber-generative": ([""], []),
    "dash-b": ([""], []),
    "mmhal": ([""], []),
}


def extreme(name: str, arms: Sequence[str], reference: str, top: float) -> Report:
    """Return a report whose numbers are as long as they can be."""
    kind = task_class(name)
    task = kind(kind.settings_class(), kind.protocol_of("opera", "llava-1.5"))
    parts, totals = PARTS[name]
    numbers = {m.name: Interval(top, top, top) for m in kind.metrics}
    changes = {m.name: Interval(-top, -top, -top / 2) for m in kind.metrics}
    test = Significance(PermutationTest(1.2345e-150, 40504, 40504, False), 12345, 54321, 1e-149)
    references = [(arm, other) for arm in arms for other in (reference, arms[0]) if arm != other]
    grouped = Grouped(
        40504,
        (totals or parts)[0],
        [Result(arm, p, p in totals, 81008, numbers) for arm in arms for p in (*parts, *totals)],
        [Difference(a, r, p, changes, test) for a, r in references for p in (*parts, *totals)],
    )
    costs = {arm: ArmCost(123.456, 1234.567, 810080, 810079) for arm in arms}
    heads = {str(head): 30000 - head for head in range(28, 32)} | {"none": 12345}
    summaries = [LayerSummary(k, 81008, heads, 576.0, 576.0, 81008) for k in (0, 31)]
    layers = {arm: summaries for arm in arms if "eah" in arm}
    some = [Answer(Item(1, "a.jpg", "?"), "yes")]
    return Report(task, dict.fromkeys(arms, some), grouped, reference, costs, layers)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("top", [1.0, -1.0, 20.0, 2000.0])
@pytest.mark.parametrize(
    ("arms", "reference"),
    [
        (["baseline", "eah"], "baseline"),
        (["baseline", *LONG], "baseline"),
        ([*LONG, "baseline"], LONG[0]),
        (["eah", "baseline"], "eah"),
        (["baseline", *(f"eah@layers={k},threshold=0.001" for k in range(20))], "baseline"),
        (["baseline", *(f"{LONG[0]},head={k}" for k in range(101))], f"{LONG[0]},head=3"),
    ],
)
def test_every_table_fits_and_nothing_is_left_out(
    name: str, top: float, arms: list[str], reference: str
) -> None:
    report = extreme(name, arms, reference, top)

    text = report.text()

    assert 0 < widest_table_line(text) <= 100
    printed = [cell for row in table_rows(text) for cell in row]
    header, rows = result_table(report)
    assert set(header[1:]) <= set(printed)
    for row in rows:
        assert set(row[1:]) <= set(printed)
        assert any(line.startswith((row[0], f"| {row[0]} ")) or line.endswith(f" {row[0]}")
                   for line in text.splitlines())  # fmt: skip


@pytest.mark.parametrize("reference", ["baseline", LONG[0]])
def test_a_number_means_one_thing_and_parts_stay_beside_numbers(reference: str) -> None:
    arms = ["baseline", *LONG]
    text = extreme("mme", arms, reference, 20.0).text()

    legends = [line for line in text.splitlines() if line.startswith("[")]
    assert set(legends) >= {f"[{at}] {name}" for at, name in enumerate(arms, 1) if name in LONG}
    meanings = defaultdict(set)
    for line in legends:
        mark, _, name = line.partition(" ")
        meanings[mark].add(name)
    assert all(len(names) == 1 for names in meanings.values())
    headers = [row for row in table_rows(text) if row[0] in ("arm", "#", "arm - reference")]
    assert headers[0][1] == "score, perception (95 %)"
    scored = [row for row in headers if "score (95 %)" in row or row[-1].startswith("vs ")]
    assert len(scored) >= 2
    assert all(row[1] == "part" for row in scored)
