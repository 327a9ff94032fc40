"""Numbers over repeats, worked out by hand and by other means."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import isnan, sqrt
from statistics import mean, stdev

import numpy as np
import pytest

from eval.files.answers import Answer, Item
from eval.stats.grouped import Difference, Result, compute_numbers
from eval.stats.intervals import Array
from eval.stats.repeats import Repeated, RepeatedNumbers, RepeatedRuns, compute_repeats
from tests.eval.stats.test_grouped import Free, Toy

PARTS = ("random", "popular")
AGAINST = {"eah": ["baseline"]}


def answers(right: Sequence[bool], *, first: int = 0, parts: Sequence[str] = PARTS) -> list[Answer]:
    """Return one answer per part about each picture, counted from `first`."""
    return [
        Answer(Item(first + at, f"{first + at}.jpg", "?", "yes", part), "yes" if good else "no")
        for part in parts
        for at, good in enumerate(right)
    ]


def drawn(seed: int, share: float, count: int = 60) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(count)]


def number(
    found: Sequence[RepeatedNumbers], arm: str, part: str, metric: str = "accuracy"
) -> Repeated:
    (one,) = [one for one in found if (one.arm, one.part) == (arm, part)]
    return one.numbers[metric]


def accuracy(found: RepeatedRuns, arm: str, part: str = "all") -> Repeated:
    return number(found.results, arm, part)


@pytest.fixture(scope="module")
def repeats() -> dict[str, list[list[Answer]]]:
    return {
        "baseline": [answers(drawn(seed, 0.6)) for seed in (1, 2, 3)],
        "eah": [answers(drawn(seed, 0.8)) for seed in (4, 5, 6)],
    }


@pytest.fixture(scope="module")
def found(repeats: dict[str, list[list[Answer]]]) -> RepeatedRuns:
    return compute_repeats(Toy(), repeats, AGAINST)


def test_each_repeat_has_the_numbers_of_its_own_run(
    found: RepeatedRuns, repeats: dict[str, list[list[Answer]]]
) -> None:
    for at in range(3):
        alone = compute_numbers(Toy(), {arm: of[at] for arm, of in repeats.items()}, AGAINST)
        single: list[Result | Difference] = [*alone.results, *alone.differences]
        expected = {(one.arm, one.part, isinstance(one, Difference)): one.numbers for one in single}
        over = [*found.results, *found.differences]
        assert len(over) == len(expected)
        for one in over:
            for name, of in one.numbers.items():
                theirs = expected[one.arm, one.part, one.reference is not None][name]
                assert of.values[at] == pytest.approx(theirs.value)


def test_mean_and_sd_are_over_repeats(found: RepeatedRuns) -> None:
    for one in (*found.results, *found.differences):
        for of in one.numbers.values():
            assert len(of.values) == 3
            assert of.mean.value == pytest.approx(mean(of.values))
            assert of.sd == pytest.approx(stdev(of.values))
            assert of.as_dict()["repeats"] == list(of.values)
            assert of.as_dict()["sd"] == of.sd


def test_parts_and_totals_are_those_of_a_run(found: RepeatedRuns) -> None:
    assert [(one.arm, one.part) for one in found.results] == [
        (arm, part) for arm in ("baseline", "eah") for part in (*PARTS, "all")
    ]
    assert {(one.arm, one.reference) for one in found.differences} == {("eah", "baseline")}
    # A total that is a sum over parts is summed over parts, and averaged over repeats.
    by_part = [number(found.results, "eah", part, "score").mean.value for part in PARTS]
    assert number(found.results, "eah", "all", "score").mean.value == pytest.approx(sum(by_part))


def test_a_picture_is_drawn_with_its_answers_in_all_repeats() -> None:
    """The same answers N times say no more of other pictures than once."""
    same = answers(drawn(7, 0.6))

    once = compute_numbers(Toy(), {"baseline": same}, {})
    often = compute_repeats(Toy(), {"baseline": [same] * 5}, {})

    for one, over in zip(once.results, often.results, strict=True):
        for name, expected in one.numbers.items():
            mean_of = over.numbers[name].mean
            assert (mean_of.value, mean_of.low, mean_of.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
            assert over.numbers[name].sd == pytest.approx(0)


def test_independent_repeats_narrow_the_interval() -> None:
    one = compute_repeats(Toy(), {"baseline": [answers(drawn(1, 0.5, 300))] * 2}, {})
    nine = compute_repeats(Toy(), {"baseline": [answers(drawn(n, 0.5, 300)) for n in range(9)]}, {})

    widths = [accuracy(of, "baseline").mean.high - accuracy(of, "baseline").mean.low
              for of in (one, nine)]  # fmt: skip
    assert widths[1] == pytest.approx(widths[0] / 3, rel=0.15)


def test_differences_are_paired_in_each_repeat() -> None:
    """Arms that move together: the sd of the difference is not that of the arms."""
    shares = (0.3, 0.6, 0.9)
    before = [answers(drawn(n, share)) for n, share in enumerate(shares)]

    found = compute_repeats(Toy(), {"baseline": before, "eah": before}, AGAINST)

    assert accuracy(found, "eah").sd > 0.2
    difference = number(found.differences, "eah", "all")
    assert difference.sd == 0
    assert difference.mean.value == 0


def test_splits_of_pictures_count_each_in_its_own_repeat() -> None:
    """Repeats of other pictures: the interval is as narrow as all of them together make it."""
    splits = [drawn(n, 0.5, 100) for n in range(5)]
    parted = {"baseline": [answers(of, first=100 * at) for at, of in enumerate(splits)]}

    found = compute_repeats(Toy(), parted, {})

    assert found.pictures == 500
    one = accuracy(found, "baseline")
    assert one.values == pytest.approx([mean(of) for of in splits])
    assert one.mean.value == pytest.approx(mean(map(mean, splits)))
    assert one.mean.high - one.mean.low == pytest.approx(2 * 1.96 * 0.5 / sqrt(500), rel=0.1)


def test_a_repeat_without_a_number_makes_the_mean_none() -> None:
    class Rare(Toy):
        def numbers(self, sums: Array) -> Array:
            asked, right, yes = sums
            share = np.where(yes > 0, right / np.where(yes > 0, yes, 1), np.nan)
            return np.stack([asked, share, share])

    found = compute_repeats(Rare(), {"baseline": [answers([True] * 9), answers([False] * 9)]}, {})

    one = accuracy(found, "baseline")
    assert isnan(one.mean.value)
    assert isnan(one.sd)
    content = one.as_dict()
    assert (content["mean"], content["sd"], content["repeats"]) == (None, None, [1.0, None])


def test_answers_that_are_not_right_or_wrong_are_repeated_too() -> None:
    found = compute_repeats(Free(), {"baseline": [answers([True, False])] * 2}, {})

    assert accuracy(found, "baseline").mean.value == pytest.approx(2.5)
