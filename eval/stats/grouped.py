"""Metrics of a benchmark by arm and part, with intervals and paired differences.

This is the same for all benchmarks: pictures are resampled with all their questions, in all parts
at once; arms are compared on the same resamples; totals over parts (POPE's mean, MME's perception)
are computed within each resample.

Axes: `N` pictures, `C` counts, `P` parts, `T` totals, `M` metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Answer
from eval.stats.intervals import Array, Interval, Metrics, bootstrap_intervals, paired_intervals
from eval.stats.metric import Scorer
from eval.stats.permutation import PermutationTest, contributions, holm, sign_flip_test


@dataclass(frozen=True, slots=True)
class Result:
    """One arm's metrics on one part, or in one total.

    Attributes:
        arm: The arm.
        part: The part or the total.
        is_total: Whether `part` is a total.
        answers: Number of answers.
        numbers: Metrics by name.
    """

    arm: str
    part: str
    is_total: bool
    answers: int
    numbers: dict[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """Return the result for a JSON file."""
        numbers = {name: number.as_dict() for name, number in self.numbers.items()}
        return {"arm": self.arm, "part": self.part, "total": self.is_total, "n": self.answers,
                "numbers": numbers}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Significance:
    """Whether two arms are right equally often.

    Attributes:
        permutation: The sign-flip test of the first metric over pictures.
        gained: Questions that only the arm answers correctly; one in several parts counts once.
        lost: Questions that only its reference answers correctly.
        p_holm: The p-value adjusted for all primary comparisons of the run; None for others.
    """

    permutation: PermutationTest
    gained: int
    lost: int
    p_holm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the test for a JSON file."""
        adjusted = None if self.p_holm is None or isnan(self.p_holm) else self.p_holm
        found = {**self.permutation.as_dict(), "gained": self.gained, "lost": self.lost}
        return found if self.p_holm is None else {**found, "p_holm": adjusted}


@dataclass(frozen=True, slots=True)
class Difference:
    """One arm minus its reference on one part, or one total.

    Attributes:
        arm: The arm.
        reference: The arm that it is compared with.
        part: The part or the total.
        numbers: Differences by metric.
        test: Test of the first metric; None if answers are not right or wrong.
    """

    arm: str
    reference: str
    part: str
    numbers: dict[str, Interval]
    test: Significance | None

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for a JSON file."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "part": self.part,
            "numbers": {name: number.as_dict() for name, number in self.numbers.items()},
            "permutation_test": None if self.test is None else self.test.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Grouped:
    """All metrics of some arms.

    Attributes:
        pictures: Number of pictures, which the intervals resample.
        primary: The part or total of the primary comparisons.
        results: By arm, then part, then total.
        differences: By arm, reference, part and total.
    """

    pictures: int
    primary: str
    results: list[Result] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def primary_differences(self) -> list[Difference]:
        """Return each comparison in the primary part or total."""
        return [one for one in self.differences if one.part == self.primary]


def compute_numbers(
    scorer: Scorer,
    arms: Mapping[str, Sequence[Answer]],
    references: Mapping[str, Sequence[str]],
) -> Grouped:
    """Compute all metrics, differences and tests.

    Args:
        scorer: The benchmark's scorer.
        arms: Answers by arm, all to the same questions.
        references: The arms that each arm is compared with.
    Raises:
        EvaluationError: If there are no answers, or arms answer different questions.
    """
    _check_same_questions(arms)
    some = next(iter(arms.values()))
    parts = list(dict.fromkeys(answer.item.part for answer in some))
    totals = scorer.totals(parts)
    pictures = sorted({answer.item.unit for answer in some})
    counts = {
        name: counts_by_picture(scorer, answers, pictures, parts) for name, answers in arms.items()
    }
    members = {**{part: [part] for part in parts}, **totals}
    # The order of `numbers`: metric by metric, and for each all parts, then all totals.
    highest = all_bounds(scorer, members)
    sizes = {name: pictures_per_metric(scorer, table, members) for name, table in counts.items()}

    numbers = all_numbers(scorer, parts)

    def named(computed: Sequence[Interval]) -> dict[str, dict[str, Interval]]:
        return {
            kind: {m.name: computed[i * len(members) + k] for i, m in enumerate(scorer.metrics)}
            for k, kind in enumerate(members)
        }

    grouped = Grouped(len(pictures), next(iter(totals), parts[0]))
    for name, answers in arms.items():
        found = bootstrap_intervals(counts[name], numbers, highest=highest, pictures=sizes[name])
        for kind, of_kind in named(found).items():
            size = sum(answer.item.part in members[kind] for answer in answers)
            grouped.results.append(Result(name, kind, kind in totals, size, of_kind))
    for name, others in references.items():
        for other in others:
            pair = counts[other], counts[name]
            both = [min(of) for of in zip(sizes[other], sizes[name], strict=True)]
            compared = named(paired_intervals(*pair, numbers, highest=highest, pictures=both))
            # Rows of the first metric, the tested one.
            moved = contributions(*pair, numbers)[: len(members)]
            for (kind, of_kind), row in zip(compared.items(), moved, strict=True):
                test = _test(scorer, arms[other], arms[name], members[kind], row)
                grouped.differences.append(Difference(name, other, kind, of_kind, test))
    return _adjust_p_values(grouped)


def _adjust_p_values(grouped: Grouped) -> Grouped:
    """Return the same with Holm's p-values of the primary comparisons."""
    tested = {(d.arm, d.reference): d.test for d in grouped.primary_differences() if d.test}
    p_values = holm([test.permutation.p_value for test in tested.values()])
    adjusted = dict(zip(tested, p_values, strict=True))
    differences = [
        replace(d, test=replace(d.test, p_holm=adjusted[d.arm, d.reference]))
        if d.test is not None and d.part == grouped.primary
        else d
        for d in grouped.differences
    ]
    return replace(grouped, differences=differences)


def _check_same_questions(arms: Mapping[str, Sequence[Answer]]) -> None:
    """Refuse arms that did not answer the same questions."""
    first, *others = arms or ("",)
    keys = {name: {answer.item.key for answer in answers} for name, answers in arms.items()}
    if not arms or not keys[first]:
        raise EvaluationError("there are no answers to compute numbers from")
    for other in others:
        if unshared := keys[first] ^ keys[other]:
            raise EvaluationError(
                f"{first} and {other} did not answer the same questions ({len(unshared)} are "
                "answered by one of them only); run the same command again to answer the rest"
            )


def counts_by_picture(
    scorer: Scorer, answers: Sequence[Answer], pictures: Sequence[str], parts: Sequence[str]
) -> Array:
    """Return counts per picture, (N, C * P); the part is the faster axis."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.item.unit, answer.item.part), []).append(answer)
    empty = np.zeros(len(scorer.counts([])))
    rows = [
        [scorer.counts(groups[name, part]) if (name, part) in groups else empty for part in parts]
        for name in pictures
    ]
    table = np.array(rows, dtype=np.float64)  # (N, P, C)
    return table.swapaxes(1, 2).reshape(len(pictures), -1)


def pictures_per_metric(
    scorer: Scorer, table: Array, members: Mapping[str, Sequence[str]]
) -> list[int]:
    """Return how many pictures each metric is computed from, in the order of `all_numbers`.

    A picture whose own metric is 0/0, such as a precision without a predicted yes, does not count.

    Args:
        scorer: The benchmark's scorer.
        table: Counts per picture, (N, C * P).
        members: Parts of each part and total; the parts come first.
    """
    parts = [kind for kind, of in members.items() if list(of) == [kind]]
    own = ~np.isnan(scorer.numbers(table.T.reshape(-1, len(parts), len(table))))  # (M, P, N)
    return [
        int(of_metric[[parts.index(part) for part in of]].any(axis=0).sum())
        for of_metric in own
        for of in members.values()
    ]


def all_numbers(scorer: Scorer, parts: Sequence[str]) -> Metrics:
    """Return a function from the sums of all parts to the metrics of all parts, then all totals.

    It maps (C * P, ...) to (M * (P + T), ...), metric by metric.
    """
    totals = scorer.totals(parts)

    def numbers(flat: Array) -> Array:
        sums = flat.reshape(-1, len(parts), *flat.shape[1:])  # (C, P, ...)
        by_part = scorer.numbers(sums)  # (M, P, ...)
        rows = [by_part, *(_total(scorer, sums, by_part, parts, of) for of in totals.values())]
        return np.concatenate(rows, axis=1).reshape(-1, *flat.shape[1:])

    return numbers


def all_bounds(scorer: Scorer, members: Mapping[str, Sequence[str]]) -> list[float | None]:
    """Return the largest value of each metric, in the order of `all_numbers`.

    Args:
        scorer: The benchmark's scorer.
        members: Parts of each part and total; the parts come first.
    """
    sizes = [1 if scorer.pooled else len(of) for of in members.values()]
    return [metric.bound(size) for metric in scorer.metrics for size in sizes]


def _total(
    scorer: Scorer, sums: Array, by_part: Array, parts: Sequence[str], members: Sequence[str]
) -> Array:
    """Return the metrics of a total, from (C, P, ...) and (M, P, ...), as (M, 1, ...)."""
    places = [parts.index(part) for part in members]
    if scorer.pooled:
        return scorer.numbers(sums[:, places].sum(axis=1))[:, None]
    chosen = by_part[:, places]
    rows = [
        values.sum(axis=0) if metric.summed else values.mean(axis=0)
        for metric, values in zip(scorer.metrics, chosen, strict=True)
    ]
    return np.stack(rows)[:, None]


def _test(
    scorer: Scorer,
    first: Sequence[Answer],
    second: Sequence[Answer],
    parts: Sequence[str],
    moved: Array,
) -> Significance | None:
    """Test the contributions of pictures to a difference, (N,), in some parts."""
    one, other = (
        {
            (answer.item.image, answer.item.question): scorer.right(answer)
            for answer in answers
            if answer.item.part in parts
        }
        for answers in (first, second)
    )
    if None in (*one.values(), *other.values()):
        return None
    gained = sum(bool(other[asked]) and not right for asked, right in one.items())
    lost = sum(bool(right) and not other[asked] for asked, right in one.items())
    return Significance(sign_flip_test(moved), gained, lost)
