"""Numbers of a benchmark by arm and part, with intervals and paired differences.

Everything that all benchmarks share: pictures are resampled with all that was asked about them, in
all parts at once; an arm is compared with others on the same resamples; totals over parts (POPE's
mean, MME's perception) are computed within each resample.

Axes: `N` pictures, `C` counts, `P` parts, `T` totals, `M` metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Answer
from eval.stats.intervals import (
    Array,
    Interval,
    McNemar,
    bootstrap_intervals,
    mcnemar,
    paired_intervals,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a benchmark.

    Attributes:
        name: In `metrics.json`.
        heading: Of its column; the name where it is empty.
        wide: Whether only the wide table has it.
        factor: What it is multiplied by in tables: 100 makes percent.
        digits: Decimal places in tables.
        summed: Whether a total over parts is their sum; otherwise it is their mean.
    """

    name: str
    heading: str = ""
    wide: bool = False
    factor: float = 100.0
    digits: int = 2
    summed: bool = False


class Scorer(Protocol):
    """What turns answers into numbers; the first metric is the one that arms are compared by."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """The numbers, in the order of `numbers`."""

    def counts(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return what the answers about one picture, in one part, add to the counts."""

    def numbers(self, sums: Array) -> Array:
        """Return the metrics from sums of counts, (C, ...) -> (M, ...)."""

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None where answers are not right or wrong."""

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return what is computed over several parts, by name."""


@dataclass(frozen=True, slots=True)
class Result:
    """One arm's numbers on one part, or one total.

    Attributes:
        arm: The arm.
        part: The part or the total.
        is_total: Whether it is a total.
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
class Difference:
    """One arm minus its reference on one part, or one total.

    Attributes:
        arm: The arm.
        reference: The arm that it is compared with.
        part: The part or the total.
        numbers: Differences by metric.
        test: On which questions each has right; None where answers are not right or wrong. A
            question that several parts ask counts once.
    """

    arm: str
    reference: str
    part: str
    numbers: dict[str, Interval]
    test: McNemar | None

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for a JSON file."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "part": self.part,
            "numbers": {name: number.as_dict() for name, number in self.numbers.items()},
            "mcnemar": None if self.test is None else self.test.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Grouped:
    """All numbers of some arms.

    Attributes:
        pictures: Number of pictures, which the intervals resample.
        results: By arm, then part, then total.
        differences: By arm, reference, part and total.
    """

    pictures: int
    results: list[Result] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def group(
    scorer: Scorer,
    arms: Mapping[str, Sequence[Answer]],
    references: Mapping[str, Sequence[str]],
) -> Grouped:
    """Compute all numbers.

    Args:
        scorer: The benchmark's.
        arms: Answers by arm, all to the same questions.
        references: The arms that each arm is compared with.
    Raises:
        EvaluationError: If there are no answers, or arms answer different questions.
    """
    _check_alike(arms)
    some = next(iter(arms.values()))
    parts = list(dict.fromkeys(answer.item.part for answer in some))
    totals = scorer.totals(parts)
    pictures = sorted({answer.item.image for answer in some})
    counts = {name: _counts(scorer, answers, pictures, parts) for name, answers in arms.items()}
    kinds = [*parts, *totals]
    members = {**{part: [part] for part in parts}, **totals}

    def numbers(sums: Array) -> Array:
        """From sums of all parts, (C * P, ...), to all numbers, (M * (P + T), ...)."""
        by_part = scorer.numbers(sums.reshape(-1, len(parts), *sums.shape[1:]))  # (M, P, ...)
        rows = [by_part, *(_total(scorer, by_part, parts, of) for of in totals.values())]
        return np.concatenate(rows, axis=1).reshape(-1, *sums.shape[1:])

    def named(computed: Sequence[Interval]) -> dict[str, dict[str, Interval]]:
        return {
            kind: {m.name: computed[i * len(kinds) + k] for i, m in enumerate(scorer.metrics)}
            for k, kind in enumerate(kinds)
        }

    grouped = Grouped(len(pictures))
    for name, answers in arms.items():
        for kind, found in named(bootstrap_intervals(counts[name], numbers)).items():
            size = sum(answer.item.part in members[kind] for answer in answers)
            grouped.results.append(Result(name, kind, kind in totals, size, found))
    for name, others in references.items():
        for other in others:
            compared = paired_intervals(counts[other], counts[name], numbers)
            for kind, found in named(compared).items():
                test = _test(scorer, arms[other], arms[name], members[kind])
                grouped.differences.append(Difference(name, other, kind, found, test))
    return grouped


def _check_alike(arms: Mapping[str, Sequence[Answer]]) -> None:
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


def _counts(
    scorer: Scorer, answers: Sequence[Answer], pictures: Sequence[str], parts: Sequence[str]
) -> Array:
    """Return counts per picture, (N, C * P), with the parts as the faster axis."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.item.image, answer.item.part), []).append(answer)
    empty = np.zeros(len(scorer.counts([])))
    rows = [
        [scorer.counts(groups[name, part]) if (name, part) in groups else empty for part in parts]
        for name in pictures
    ]
    table = np.array(rows, dtype=np.float64)  # (N, P, C)
    return table.swapaxes(1, 2).reshape(len(pictures), -1)


def _total(scorer: Scorer, by_part: Array, parts: Sequence[str], members: Sequence[str]) -> Array:
    """Return the metrics of a total, (M, P, ...) -> (M, 1, ...)."""
    chosen = by_part[:, [parts.index(part) for part in members]]
    rows = [
        values.sum(axis=0) if metric.summed else values.mean(axis=0)
        for metric, values in zip(scorer.metrics, chosen, strict=True)
    ]
    return np.stack(rows)[:, None]


def _test(
    scorer: Scorer, first: Sequence[Answer], second: Sequence[Answer], parts: Sequence[str]
) -> McNemar | None:
    one, other = (
        {
            (answer.item.image, answer.item.question): scorer.right(answer)
            for answer in answers
            if answer.item.part in parts
        }
        for answers in (first, second)
    )
    if None in one.values():
        return None
    return mcnemar([bool(x) for x in one.values()], [bool(other[asked]) for asked in one])
