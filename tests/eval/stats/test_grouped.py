"""Numbers by arm and part, totals and paired differences, recomputed with plain loops."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.stats.grouped import Difference, Grouped, Result, compute_numbers
from eval.stats.intervals import Array, Interval, ratio
from eval.stats.metric import Metric

Arms = dict[str, list[Answer]]
PARTS = ("random", "popular", "adversarial")
ARMS = ("baseline", "eah", "other")
PICTURES = 80
NAMES = ("score", "accuracy", "yes")
AGAINST = {"eah": ["baseline"], "other": ["baseline", "eah"]}


class Toy:
    """A benchmark of three counts; its score is summed over parts, its shares are averaged."""

    pooled = False
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("score", summed=True, highest=150.0),
        Metric("accuracy"),
        Metric("yes"),
    )

    def counts(self, answers: Sequence[Answer]) -> list[float]:
        return [
            len(answers),
            sum(self.right(answer) for answer in answers),
            sum(answer.text == "yes" for answer in answers),
        ]

    def numbers(self, sums: Array) -> Array:
        asked, right, yes = sums
        accuracy = ratio(right, asked)
        return np.stack([100 * accuracy + 50 * ratio(yes, asked), accuracy, ratio(yes, asked)])

    def right(self, answer: Answer) -> bool:
        return answer.text == answer.item.label

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        found = {"all": list(parts), "hard": [part for part in parts if part != "random"]}
        return {name: of for name, of in found.items() if len(of) > 1}


class Free(Toy):
    """A benchmark whose answers are neither right nor wrong."""

    def right(self, answer: Answer) -> Any:
        return None

    def counts(self, answers: Sequence[Answer]) -> list[float]:
        return [len(answers), sum(len(answer.text) for answer in answers), 0]


def arms_of(names: Sequence[str] = ARMS, parts: Sequence[str] = PARTS) -> Arms:
    """Return answers as a run records them.

    Every part asks about the same three objects that are there, answered alike each time, and about
    three of its own that are not. Every fifth picture is not asked about in "popular".
    """
    rng = random.Random(5)
    arms: Arms = {name: [] for name in names}
    for number in range(PICTURES):
        easy = rng.random() < 0.7  # for all arms
        for name in names:
            present = [say("yes", easy, rng) for _ in range(3)]
            for part in parts:
                absent = [say("no", easy, rng) for _ in range(3)]
                if part == "popular" and number % 5 == 4:
                    continue
                for i, text in enumerate(present + absent):
                    thing = f"thing{i}" if i < 3 else f"{part}{i}"
                    item = Item(
                        6 * number + i + 1,
                        f"{PICTURES - number:03}.jpg",
                        f"Is there a {thing} in the image?",
                        "yes" if i < 3 else "no",
                        part,
                    )
                    arms[name].append(Answer(item, text))
    return arms


def say(label: str, easy: bool, rng: random.Random) -> str:
    if rng.random() < 0.05:
        return "cannot tell"
    right = rng.random() < (0.95 if easy else 0.5)
    return label if right else {"yes": "no", "no": "yes"}[label]


def table_of(answers: Sequence[Answer], part: str) -> np.ndarray[Any, Any]:
    """Return asked, right and said yes by picture."""
    table = np.zeros((PICTURES, 3))
    for answer in answers:
        if answer.item.part == part:
            table[int(answer.item.image[:3]) - 1] += [
                1,
                answer.text == answer.item.label,
                answer.text == "yes",
            ]
    return table


def plain(table: np.ndarray[Any, Any]) -> list[float]:
    asked, right, yes = table.sum(axis=0)
    return [(100 * right + 50 * yes) / asked, right / asked, yes / asked]


def with_totals(by_part: list[list[float]]) -> list[list[float]]:
    """Return the numbers of each part, then of all parts and of the last two."""
    rows = list(by_part)
    for of in (by_part, by_part[1:]):
        rows.append([sum(x[0] for x in of), *(sum(x[m] for x in of) / len(of) for m in (1, 2))])
    return rows


KINDS = (*PARTS, "all", "hard")


@pytest.fixture(scope="module")
def arms() -> Arms:
    return arms_of()


@pytest.fixture(scope="module")
def found(arms: Arms) -> Grouped:
    return compute_numbers(Toy(), arms, AGAINST)


@pytest.fixture(scope="module")
def samples(arms: Arms) -> np.ndarray[Any, Any]:
    """Return numbers of 3,000 resamples: (resamples, arms, parts and totals, metrics)."""
    tables = [[table_of(of, part) for part in PARTS] for of in arms.values()]
    rng = np.random.default_rng(77)
    drawn = [rng.integers(0, PICTURES, PICTURES) for _ in range(3000)]
    return np.array(
        [[with_totals([plain(table[d]) for table in arm]) for arm in tables] for d in drawn]
    )


class Pooled(Toy):
    """The same, whose totals are of all questions."""

    pooled = True


def test_pooled_totals_are_numbers_of_all_questions_together(arms: Arms) -> None:
    found = compute_numbers(Pooled(), arms, AGAINST)

    for name, answers in arms.items():
        for kind, parts in (("all", PARTS), ("hard", PARTS[1:])):
            one = result(found, name, kind)
            tables = [table_of(answers, part) for part in parts]
            whole = plain(np.concatenate(tables))
            assert [number.value for number in one.numbers.values()] == pytest.approx(whole)
            # Pictures are drawn once for all parts.
            together = np.sum(tables, axis=0)
            rng = np.random.default_rng(3)
            drawn = [plain(together[rng.integers(0, PICTURES, PICTURES)]) for _ in range(3000)]
            low, high = np.quantile(np.array(drawn)[:, 1], [0.025, 0.975])
            accuracy = list(one.numbers.values())[1]
            assert (accuracy.low, accuracy.high) == pytest.approx((low, high), abs=0.01)
    parts = [one.numbers for one in found.results if not one.is_total]
    assert parts == [
        one.numbers for one in compute_numbers(Toy(), arms, AGAINST).results if not one.is_total
    ]


def test_what_is_resampled_may_hold_several_pictures(arms: Arms) -> None:
    """Pictures in pairs, each with the same answers: as wide as half as many pictures."""
    name, answers = next(iter(arms.items()))
    twice = [
        Answer(replace(a.item, image=f"{k}-{a.item.image}", groups={"unit": a.item.image}), a.text)
        for a in answers
        for k in range(2)
    ]

    one, both = (compute_numbers(Toy(), {name: of}, {}) for of in (answers, twice))

    assert one.pictures == both.pictures == PICTURES
    assert [r.numbers for r in both.results] == [r.numbers for r in one.results]


def result(found: Grouped, arm: str, part: str) -> Result:
    (one,) = [one for one in found.results if (one.arm, one.part) == (arm, part)]
    return one


def difference(found: Grouped, arm: str, reference: str, part: str) -> Difference:
    (one,) = [
        one
        for one in found.differences
        if (one.arm, one.reference, one.part) == (arm, reference, part)
    ]
    return one


def close(interval: Interval, samples: np.ndarray[Any, Any]) -> bool:
    low, high = np.percentile(samples, [2.5, 97.5])
    slack = 0.09 * (high - low)  # what 3,000 resamples leave open
    return bool(abs(interval.low - low) < slack and abs(interval.high - high) < slack)


def test_values_are_those_of_plain_loops(arms: Arms, found: Grouped) -> None:
    assert found.pictures == PICTURES
    assert [(r.arm, r.part, r.is_total) for r in found.results] == [
        (arm, kind, kind not in PARTS) for arm in ARMS for kind in KINDS
    ]
    for arm, answers in arms.items():
        rows = with_totals([plain(table_of(answers, part)) for part in PARTS])
        for kind, row in zip(KINDS, rows, strict=True):
            one = result(found, arm, kind)
            assert [n.value for n in one.numbers.values()] == pytest.approx(row, rel=1e-12)
            assert tuple(one.numbers) == NAMES


def test_answers_are_counted_by_part_and_total(arms: Arms, found: Grouped) -> None:
    size = {part: sum(a.item.part == part for a in arms["eah"]) for part in PARTS}
    size |= {"all": sum(size.values()), "hard": size["popular"] + size["adversarial"]}

    assert size["popular"] < size["random"]
    assert {kind: result(found, "eah", kind).answers for kind in KINDS} == size


def test_intervals_are_those_of_a_bootstrap_over_pictures(
    found: Grouped, samples: np.ndarray[Any, Any]
) -> None:
    for a, arm in enumerate(ARMS):
        for k, kind in enumerate(KINDS):
            numbers = result(found, arm, kind).numbers
            for m, name in enumerate(NAMES):
                assert close(numbers[name], samples[:, a, k, m]), (arm, kind, name)


def test_an_interval_is_that_of_scipy_on_pairs_of_counts(arms: Arms, found: Grouped) -> None:
    table = table_of(arms["eah"], "adversarial")

    theirs = stats.bootstrap(
        (table[:, 1], table[:, 0]),
        lambda right, asked, axis: right.sum(axis=axis) / asked.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(8),
    ).confidence_interval

    mine = result(found, "eah", "adversarial").numbers["accuracy"]
    slack = 0.06 * (theirs.high - theirs.low)
    assert abs(mine.low - theirs.low) < slack
    assert abs(mine.high - theirs.high) < slack


def test_differences_are_paired_by_picture(found: Grouped, samples: np.ndarray[Any, Any]) -> None:
    assert [(d.arm, d.reference, d.part) for d in found.differences] == [
        (arm, other, kind) for arm, others in AGAINST.items() for other in others for kind in KINDS
    ]
    for one in found.differences:
        k = KINDS.index(one.part)
        first, second = (samples[:, ARMS.index(name), k] for name in (one.reference, one.arm))
        for m, name in enumerate(NAMES):
            expected = (
                result(found, one.arm, one.part).numbers[name].value
                - result(found, one.reference, one.part).numbers[name].value
            )
            assert one.numbers[name].value == pytest.approx(expected, abs=1e-12)
            assert close(one.numbers[name], second[:, m] - first[:, m]), one


def test_a_question_that_several_parts_ask_counts_once_in_the_test(
    arms: Arms, found: Grouped
) -> None:
    members = {**{part: [part] for part in PARTS}, "all": PARTS, "hard": PARTS[1:]}
    for arm, reference in (("eah", "baseline"), ("other", "eah")):
        for kind, parts in members.items():
            right: dict[str, set[str]] = {arm: set(), reference: set()}
            for name, known in right.items():
                for answer in arms[name]:
                    if answer.item.part in parts and answer.text == answer.item.label:
                        known.add(answer.item.image + answer.item.question)
            gained = len(right[arm] - right[reference])
            lost = len(right[reference] - right[arm])
            test = difference(found, arm, reference, kind).test
            assert test is not None
            assert (test.gained, test.lost) == (gained, lost)
    once, each = (
        [difference(found, "eah", "baseline", kind).test for kind in kinds]
        for kinds in (["all"], PARTS)
    )
    assert once[0].gained < sum(test.gained for test in each)  # type: ignore[union-attr]  # not None, see above


def test_a_test_weighs_questions_as_the_metric_does(arms: Arms, found: Grouped) -> None:
    """In the mean of unequal parts, an answer counts by the size of its part."""
    members = {**{part: [part] for part in PARTS}, "all": PARTS, "hard": PARTS[1:]}
    for kind, parts in members.items():
        size = {part: sum(a.item.part == part for a in arms["eah"]) for part in parts}
        moved: dict[str, float] = {}
        for name, sign in (("other", 1), ("eah", -1)):
            for answer in arms[name]:
                if (part := answer.item.part) in parts:
                    right, yes = answer.text == answer.item.label, answer.text == "yes"
                    gain = sign * (100 * right + 50 * yes) / size[part]
                    moved[answer.item.image] = moved.get(answer.item.image, 0.0) + gain
        one = difference(found, "other", "eah", kind)
        assert sum(moved.values()) == pytest.approx(one.numbers["score"].value)
        assert one.test is not None
        expected = stats.permutation_test(
            (np.array(list(moved.values())),), lambda x, axis: x.sum(axis=axis), vectorized=True,
            permutation_type="samples", n_resamples=20_000, batch=1000, rng=3,
        ).pvalue  # fmt: skip
        assert one.test.permutation.p_value == pytest.approx(expected, abs=0.012)
        assert one.test.permutation.pictures == PICTURES


def test_where_all_pictures_give_the_same_a_sum_has_wilsons_interval_up_to_its_own_maximum() -> (
    None
):
    perfect = [
        Answer(Item(f"{n}{label}", f"{n}.jpg", label, label, part), label)
        for n in range(30) for label in ("yes", "no") for part in ("a", "b", "c")
    ]  # fmt: skip

    found = compute_numbers(Toy(), {"eah": perfect}, {})

    one = result(found, "eah", "all").numbers["score"]
    share = 3 * (100 + 25) / (3 * 150)
    known = stats.binomtest(25, 30).proportion_ci(method="wilson")
    assert share == 25 / 30
    assert (one.value, one.low, one.high) == pytest.approx((375, 450 * known.low, 450 * known.high))
    assert one.wilson


def test_a_pooled_total_has_the_bounds_of_one_part() -> None:
    perfect = [
        Answer(Item(f"{n}{label}", f"{n}.jpg", label, label, part), label)
        for n in range(30) for label in ("yes", "no") for part in ("a", "b", "c")
    ]  # fmt: skip

    one = result(compute_numbers(Pooled(), {"eah": perfect}, {}), "eah", "all").numbers["score"]

    known = stats.binomtest(25, 30).proportion_ci(method="wilson")
    assert (one.value, one.low, one.high) == pytest.approx((125, 150 * known.low, 150 * known.high))


class Counted(Pooled):
    """Its third number is no ratio: how many answers there are."""

    def numbers(self, sums: Array) -> Array:
        return np.concatenate([super().numbers(sums)[:2], sums[:1]])


def test_pooled_counts_are_summed(arms: Arms) -> None:
    found = compute_numbers(Counted(), arms, {})

    for name, answers in arms.items():
        assert result(found, name, "all").numbers["yes"].value == len(answers)


def test_primary_comparisons_alone_are_adjusted_for_their_number(found: Grouped) -> None:
    assert found.primary == "all"
    primary = found.primary_differences()
    assert [(d.arm, d.reference) for d in primary] == [
        ("eah", "baseline"), ("other", "baseline"), ("other", "eah"),
    ]  # fmt: skip
    p_values = [d.test.permutation.p_value for d in primary if d.test]
    adjusted = [d.test.p_holm for d in primary if d.test]
    order = sorted(range(3), key=lambda at: p_values[at])
    assert adjusted[order[0]] == pytest.approx(min(1, 3 * p_values[order[0]]))
    assert all(d.test is None or d.test.p_holm is None
               for d in found.differences if d.part != "all")  # fmt: skip


def test_what_is_not_defined_is_none_and_has_no_test(arms: Arms) -> None:
    class Halves(Toy):
        def numbers(self, sums: Array) -> Array:
            found = super().numbers(sums)
            return np.stack([found[0] + nan, found[1], found[2]])

    found = compute_numbers(Halves(), arms, AGAINST)

    number = found.results[0].as_dict()["numbers"]["score"]
    assert number == {"value": None, "low": None, "high": None}
    tested = found.primary_differences()[0].as_dict()["permutation_test"]
    assert (tested["p_value"], tested["p_holm"]) == (None, None)


def test_pictures_are_matched_by_name_not_by_order(arms: Arms, found: Grouped) -> None:
    shuffled = {name: random.Random(1).sample(of, len(of)) for name, of in arms.items()}
    for of in shuffled.values():
        of.sort(key=lambda answer: PARTS.index(answer.item.part))
    again = compute_numbers(Toy(), shuffled, AGAINST)

    for one in found.results:
        assert result(again, one.arm, one.part) == one
    for other in found.differences:
        assert difference(again, other.arm, other.reference, other.part) == other


def test_answers_that_are_not_right_or_wrong_have_no_test(arms: Arms) -> None:
    found = compute_numbers(Free(), arms, AGAINST)

    assert {one.test for one in found.differences} == {None}
    assert found.differences[0].as_dict()["permutation_test"] is None
    assert not isnan(found.differences[0].numbers["accuracy"].low)


def test_an_arm_without_reference_is_compared_with_nothing(arms: Arms) -> None:
    found = compute_numbers(Toy(), {"eah": arms["eah"], "other": arms["other"]}, {})

    assert found.differences == []
    assert {one.arm for one in found.results} == {"eah", "other"}


def test_one_part_has_no_total() -> None:
    found = compute_numbers(Toy(), arms_of(parts=("random",)), {"eah": ["baseline"]})

    assert [one.part for one in found.results] == ["random"] * 3
    assert [one.part for one in found.differences] == ["random"]


def test_one_picture_has_numbers_and_no_interval(arms: Arms) -> None:
    one = {name: [a for a in of if a.item.image == "001.jpg"] for name, of in arms.items()}

    found = compute_numbers(Toy(), one, AGAINST)

    assert found.pictures == 1
    number = found.results[0].as_dict()["numbers"]["accuracy"]
    assert number["low"] is number["high"] is None
    assert number["value"] is not None
    assert found.differences[0].as_dict()["numbers"]["accuracy"]["low"] is None


def test_a_file_has_what_was_found(found: Grouped) -> None:
    first, compared = found.results[3].as_dict(), found.differences[3].as_dict()

    assert (first["arm"], first["part"], first["total"]) == ("baseline", "all", True)
    assert first["n"] == found.results[3].answers
    assert (compared["arm"], compared["reference"], compared["part"]) == ("eah", "baseline", "all")
    assert compared["permutation_test"].keys() == {
        "p_value", "pictures", "differing", "exact", "gained", "lost", "p_holm",
    }  # fmt: skip
    assert "p_holm" not in found.differences[0].as_dict()["permutation_test"]
    assert first["numbers"].keys() == compared["numbers"].keys() == set(NAMES)


def test_arms_with_other_questions_are_refused(arms: Arms) -> None:
    short = {"baseline": arms["baseline"], "eah": arms["eah"][3:]}

    with pytest.raises(
        EvaluationError, match=r"baseline and eah did not answer the same questions \(3 are"
    ):
        compute_numbers(Toy(), short, {"eah": ["baseline"]})
    with pytest.raises(EvaluationError, match=r"same questions \(3 are"):
        compute_numbers(Toy(), dict(reversed(short.items())), {})


@pytest.mark.parametrize("arms", [{}, {"baseline": []}])
def test_no_answers_are_refused(arms: Arms) -> None:
    with pytest.raises(EvaluationError, match="there are no answers to compute numbers from"):
        compute_numbers(Toy(), arms, {})
