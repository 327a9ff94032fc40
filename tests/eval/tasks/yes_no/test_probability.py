"""AUROC and log-odds of arms, against plain numpy; what is said where there are none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from math import log, nan
from typing import Any

import numpy as np
import pytest

from eval.files.answers import Answer, Item
from eval.output.report import report_of
from eval.stats.intervals import RESAMPLES, wilson_interval
from eval.stats.permutation import sign_flip_test
from eval.tasks.pope.task import Pope, PopeSettings
from eval.tasks.yes_no.probability import Probabilities, probabilities
from eval.tasks.yes_no.probability_table import probability_text
from tests.eval.tables import widest_table_line

PARTS = ("random", "popular")
PICTURES = 6
Chance = Callable[[Item, np.random.Generator], float | None]


def items(parts: tuple[str, ...] = PARTS) -> list[Item]:
    """Return questions of either label about each picture; parts differ in their number."""
    return [
        Item(100 * picture + number, f"{picture}.jpg", f"Is there {number}?", label, part)
        for share, part in enumerate(parts)
        for picture in range(PICTURES)
        for number, label in enumerate(["yes", "no"] * (1 + (picture + share) % (3 - share)))
    ]


def arm(chance: Chance, asked: list[Item] | None = None, seed: int = 0) -> list[Answer]:
    rng = np.random.default_rng(seed)
    return [
        Answer(item, "yes", p_yes=chance(item, rng))
        for item in (items() if asked is None else asked)
    ]


def fair(item: Item, rng: np.random.Generator) -> float:
    return round(float(rng.uniform(0.05, 0.95)), 1)  # with ties


def better(item: Item, rng: np.random.Generator) -> float:
    return round(float(rng.uniform(0.05, 0.75)), 1) + 0.2 * (item.label == "yes")


def found_of(
    arms: Mapping[str, list[Answer]], references: Mapping[str, list[str]] | None = None
) -> Probabilities:
    task = Pope(PopeSettings())
    parts = list(dict.fromkeys(answer.item.part for answer in next(iter(arms.values()))))
    found = probabilities(arms, references or {}, task.totals(parts))
    assert found is not None
    return found


def log_odds(answers: list[Answer], part: str, times: Mapping[str, float] | None = None) -> float:
    """Return the mean log-odds on the true side, each answer as often as its picture is drawn."""
    total = count = 0.0
    for answer in answers:
        if answer.item.part == part and answer.p_yes is not None:
            true = answer.p_yes if answer.item.label == "yes" else 1 - answer.p_yes
            weight = 1.0 if times is None else times[answer.item.image]
            total += weight * log(true / (1 - true))
            count += weight
    return total / count if count else nan


def auroc(answers: list[Answer], part: str) -> float:
    mine = [(a.p_yes, a.item.label) for a in answers if a.item.part == part]
    high = [p for p, label in mine if label == "yes"]
    low = [p for p, label in mine if label == "no"]
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(high, low)]  # type: ignore[operator]
    return sum(wins) / len(wins)


def test_numbers_are_those_of_plain_loops_and_a_total_is_their_mean() -> None:
    answers = arm(fair)

    numbers = found_of({"a": answers}).numbers["a"]

    for name, plain in (("auroc", auroc), ("log_odds", log_odds)):
        values = [plain(answers, part) for part in PARTS]
        assert [numbers[part][name].value for part in PARTS] == pytest.approx(values, abs=1e-12)
        assert numbers["mean"][name].value == pytest.approx(sum(values) / 2, abs=1e-12)
        assert values[0] != pytest.approx(values[1], abs=1e-3)


def test_intervals_resample_pictures_in_all_parts_at_once() -> None:
    answers = arm(fair)
    names = [f"{number}.jpg" for number in range(PICTURES)]
    # Only some pictures have questions of both parts.
    answers = [a for a in answers if a.item.part == "random" or a.item.image > "0.jpg"]
    values = []
    for row in np.random.default_rng(6).multinomial(PICTURES, [1 / PICTURES] * PICTURES, RESAMPLES):
        times = dict(zip(names, row.tolist(), strict=True))
        by_part = [log_odds(answers, part, times) for part in PARTS]
        values.append([*by_part, sum(by_part) / 2])

    numbers = found_of({"a": answers}).numbers["a"]

    assert len(values) == RESAMPLES
    ends = np.nanquantile(values, [0.025, 0.975], axis=0).T.tolist()
    for part, expected in zip((*PARTS, "mean"), ends, strict=True):
        interval = numbers[part]["log_odds"]
        slack = 0.05 * (expected[1] - expected[0])  # what other resamples leave open
        assert [interval.low, interval.high] == pytest.approx(expected, abs=slack)


def test_differences_are_paired_and_tested_by_picture() -> None:
    arms = {"a": arm(fair), "b": arm(better, seed=1), "c": arm(better)}

    found = found_of(arms, {"b": ["a"], "c": ["a"]})

    by_part = {(one.arm, one.part): one for one in found.differences}
    assert list(by_part) == [(x, part) for x in "bc" for part in (*PARTS, "mean")]
    for (name, part), one in by_part.items():
        mine, theirs = found.numbers[name][part], found.numbers["a"][part]
        for statistic in ("auroc", "log_odds"):
            expected = mine[statistic].value - theirs[statistic].value
            assert one.numbers[statistic].value == pytest.approx(expected, abs=1e-12)
    mean = by_part["b", "mean"]
    added = np.zeros(PICTURES)
    for part in PARTS:
        size = sum(a.item.part == part for a in arms["a"])
        for mine_, theirs_ in zip(arms["b"], arms["a"], strict=True):
            if mine_.item.part == part:
                moved = log_odds([mine_], part) - log_odds([theirs_], part)
                added[int(mine_.item.image[0])] += moved / size / 2
    assert mean.numbers["log_odds"].value == pytest.approx(added.sum(), abs=1e-12)
    assert mean.test == sign_flip_test(added)
    assert mean.test.exact
    adjusted = [by_part[name, "mean"] for name in "bc"]
    p_values = sorted(one.test.p_value for one in adjusted)
    assert sorted(one.p_holm for one in adjusted if one.p_holm is not None) == pytest.approx(
        [min(1.0, 2 * p_values[0]), max(min(1.0, 2 * p_values[0]), p_values[1])]
    )
    assert by_part["b", "random"].p_holm is None


def test_the_same_probabilities_differ_by_nothing() -> None:
    found = found_of({"a": arm(fair), "b": arm(fair)}, {"b": ["a"]})

    for one in found.differences:
        assert one.test.p_value == 1.0
        auroc_ = one.numbers["auroc"]
        assert (auroc_.value, auroc_.wilson) == (0.0, True)
        assert auroc_.low == -auroc_.high < 0


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_infinite_log_odds_are_no_number_and_it_is_said(certain: float) -> None:
    def ruled_out(item: Item, rng: np.random.Generator) -> float:
        value = fair(item, rng)
        return certain if item.part == "random" and item.id == 0 else value

    found = found_of({"a": arm(fair), "vcd": arm(ruled_out)}, {"vcd": ["a"]})

    numbers = found.numbers["vcd"]
    assert np.isnan([numbers[part]["log_odds"].value for part in ("random", "mean")]).all()
    assert numbers["popular"]["log_odds"].value == found.numbers["a"]["popular"]["log_odds"].value
    assert numbers["random"]["auroc"].value == auroc(arm(ruled_out), "random")
    assert numbers["mean"]["auroc"].value < 1
    (note,) = found.notes
    assert note.startswith(
        f"vcd: no log-odds, since 1 of {len(items())} answers have a p(yes) of 0 or 1:"
    )
    (mean,) = [one for one in found.differences if one.part == "mean"]
    assert np.isnan(mean.test.p_value)
    assert mean.as_dict()["permutation_test"]["p_holm"] is None
    assert mean.as_dict()["log_odds"] == {"value": None, "low": None, "high": None}


def test_answers_without_a_probability_have_no_numbers_and_it_is_said() -> None:
    def partly(item: Item, rng: np.random.Generator) -> float | None:
        value = fair(item, rng)
        return None if item.part == "popular" and item.id in (0, 1) else value

    found = found_of({"a": arm(partly)})

    numbers = found.numbers["a"]
    assert np.isnan([numbers["popular"][name].value for name in ("auroc", "log_odds")]).all()
    assert np.isnan(numbers["mean"]["auroc"].value)
    assert numbers["random"]["auroc"].value == auroc(arm(fair), "random")
    (note,) = found.notes
    assert note.startswith(f"a: no numbers, since 2 of {len(items())} answers have no p(yes)")


def test_old_answers_have_no_table_at_all() -> None:
    answers = arm(lambda *_: None)

    assert probabilities({"a": answers}, {}, {}) is None
    report = report_of(Pope(PopeSettings()), {"a": answers})
    assert "p(yes)" not in report.text()
    assert "p_yes" not in report.as_dict()


def test_labels_that_are_all_the_same_have_no_auroc() -> None:
    asked = [item for item in items() if item.part == "random" or item.label == "yes"]

    found = found_of({"a": arm(fair, asked), "b": arm(fair, asked)})

    assert np.isnan([found.numbers["a"][part]["auroc"].value for part in ("popular", "mean")]).all()
    assert not np.isnan(found.numbers["a"]["popular"]["log_odds"].value)
    assert found.notes == ["no AUROC for mean, popular: all labels of a part are the same"]


def test_pictures_that_a_part_does_not_ask_about_count_for_nothing_in_it() -> None:
    asked = [item for item in items() if item.part == "random" or item.image < "3.jpg"]
    answers = arm(fair, asked)

    numbers = found_of({"a": answers}).numbers["a"]

    assert numbers["popular"]["auroc"].value == pytest.approx(auroc(answers, "popular"))
    assert numbers["popular"]["log_odds"].value == pytest.approx(log_odds(answers, "popular"))


def report(arms: Mapping[str, list[Answer]]) -> tuple[str, dict[str, Any]]:
    made = report_of(Pope(PopeSettings()), arms)
    return made.text(), json.loads(json.dumps(made.as_dict(), allow_nan=False))


def test_the_report_has_both_tables_and_json_all_parts() -> None:
    text, content = report({"baseline": arm(fair), "eah": arm(better, seed=1)})

    numbers, differences = text.split("| arm, by p(yes)")[1].split("| arm - reference, mean")
    assert numbers.count("\n| baseline ") == numbers.count("\n| eah ") == 3
    assert differences.count("eah - baseline") == 1
    assert differences.endswith("\np: sign-flip permutation test of the log-odds over pictures")
    found = content["p_yes"]
    assert found["primary"] == "mean"
    assert set(found["arms"]["eah"]) == {"random", "popular", "mean"}
    assert set(found["arms"]["eah"]["mean"]["auroc"]) >= {"value", "low", "high"}
    assert [one["part"] for one in found["differences"]] == ["random", "popular", "mean"]
    assert found["differences"][0]["permutation_test"]["pictures"] == PICTURES


def test_holm_is_stated_for_the_comparisons_that_have_a_p_value() -> None:
    certain = arm(lambda *_: 1.0)
    arms = {"baseline": arm(fair), "better": arm(better), "third": arm(better), "vcd": certain}
    references = {name: ["baseline"] for name in list(arms)[1:]}

    three, one = (
        probability_text(found_of(arms, {name: references[name] for name in names}))
        for names in (["better", "third", "vcd"], ["better", "vcd"])
    )

    assert "Holm-adjusted for 2 comparisons" in three
    assert "Holm" not in one


def test_tables_of_long_names_fit() -> None:
    name = "vcd+eah@layers=0-1,threshold=0.00125,alpha=0.5,noise_step=400"
    arms = {"baseline": arm(fair), name: arm(better), f"{name},seed=1": arm(lambda *_: 1.0)}
    found = found_of(arms, {name: ["baseline"], f"{name},seed=1": ["baseline"]})

    text = probability_text(found)

    assert max(map(widest_table_line, text.splitlines())) <= 100
    assert max(map(len, text.splitlines())) <= 100
    assert " ".join(text.split()).count("equal values are ties in AUROC") == 1


def test_wilsons_interval_counts_the_pictures_of_its_own_part() -> None:
    asked = [
        Item(f"{picture}{label}", f"{picture}.jpg", label, label, part)
        for part, pictures in (("random", 10), ("popular", 4))
        for picture in range(pictures)
        for label in ("yes", "no")
    ]
    sure = arm(lambda item, _: 0.9 if item.label == "yes" else 0.1, asked)

    numbers = found_of({"a": sure}).numbers["a"]

    for kind, pictures in (("random", 10), ("popular", 4), ("mean", 10)):
        found = numbers[kind]["auroc"]
        assert found.wilson
        assert found.low == pytest.approx(wilson_interval(1.0, pictures).low)
