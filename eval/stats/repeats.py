"""Numbers over repeats of a run: mean, standard deviation, and an interval over pictures.

Repeats are runs with other seeds. Each picture is drawn with its answers in all repeats, because
these are as dependent as the questions about it; a picture that a repeat does not have adds nothing
to that repeat. The standard deviation over repeats says what the seed does to one run, the interval
how sure the mean is for other pictures.

Axes: `N` pictures, `R` repeats, `C` counts, `P` parts, `K` parts and totals, `M` metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import stdev
from typing import Any

import numpy as np

from eval.files.answers import Answer
from eval.stats.grouped import all_bounds, all_numbers, counts_by_picture, pictures_per_metric
from eval.stats.intervals import Array, Interval, Metrics, bootstrap_intervals, paired_intervals
from eval.stats.metric import Scorer


@dataclass(frozen=True, slots=True)
class Repeated:
    """A number over repeats.

    Attributes:
        mean: Over repeats, with its 95 % interval over pictures.
        values: By repeat.
    """

    mean: Interval
    values: tuple[float, ...]

    @property
    def sd(self) -> float:
        """The standard deviation over repeats, divided by their number - 1; nan where one is."""
        return nan if np.isnan(self.values).any() else stdev(self.values)

    def as_dict(self) -> dict[str, Any]:
        """Return the number for a JSON file."""
        found = self.mean.as_dict()
        return {
            "mean": found.pop("value"),
            "sd": None if np.isnan(self.sd) else self.sd,
            **found,
            "repeats": [None if np.isnan(value) else value for value in self.values],
        }


@dataclass(frozen=True, slots=True)
class RepeatedNumbers:
    """The numbers of one arm, or its differences to a reference, in one part or total.

    Attributes:
        arm: The arm.
        reference: The arm that it is compared with; None for the arm's own numbers.
        part: The part or total.
        numbers: By metric.
    """

    arm: str
    reference: str | None
    part: str
    numbers: dict[str, Repeated]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        compared = {} if self.reference is None else {"reference": self.reference}
        numbers = {name: number.as_dict() for name, number in self.numbers.items()}
        return {"arm": self.arm, **compared, "part": self.part, "numbers": numbers}


@dataclass(frozen=True, slots=True)
class RepeatedRuns:
    """All numbers of some arms over repeats.

    Attributes:
        pictures: Number of pictures of all repeats, which the intervals resample.
        results: By arm, then part, then total.
        differences: By arm, reference, part and total.
    """

    pictures: int
    results: list[RepeatedNumbers]
    differences: list[RepeatedNumbers]


def compute_repeats(
    scorer: Scorer,
    arms: Mapping[str, Sequence[Sequence[Answer]]],
    references: Mapping[str, Sequence[str]],
) -> RepeatedRuns:
    """Compute all numbers.

    Args:
        scorer: The benchmark's, or another.
        arms: Answers of each repeat by arm; all arms answer the same in a repeat.
        references: The arms that each arm is compared with.
    """
    some = next(iter(arms.values()))
    everything = [answer for answers in some for answer in answers]
    parts = list(dict.fromkeys(answer.item.part for answer in everything))
    members = {**{part: [part] for part in parts}, **scorer.totals(parts)}
    pictures = sorted({answer.item.unit for answer in everything})
    counts = {
        name: np.concatenate(
            [counts_by_picture(scorer, one, pictures, parts) for one in answers], axis=1
        )
        for name, answers in arms.items()
    }  # (N, R * C * P)
    each = _by_repeat(scorer, parts, len(some))
    highest = all_bounds(scorer, members)
    sizes = {
        name: pictures_per_metric(
            scorer, table.reshape(len(pictures), len(some), -1).sum(axis=1), members
        )
        for name, table in counts.items()
    }

    def mean(sums: Array) -> Array:
        return np.asarray(each(sums).mean(axis=0))

    def numbers(
        arm: str, other: str | None, found: Sequence[Interval], values: Array
    ) -> list[RepeatedNumbers]:
        rows = [Repeated(one, tuple(of.tolist())) for one, of in zip(found, values.T, strict=True)]
        return [
            RepeatedNumbers(
                arm,
                other,
                kind,
                {m.name: rows[i * len(members) + k] for i, m in enumerate(scorer.metrics)},
            )
            for k, kind in enumerate(members)
        ]

    values = {name: each(table.sum(axis=0)) for name, table in counts.items()}  # (R, M * K)
    runs = RepeatedRuns(len(pictures), [], [])
    for name, table in counts.items():
        found = bootstrap_intervals(table, mean, highest=highest, pictures=sizes[name])
        runs.results.extend(numbers(name, None, found, values[name]))
    for name, others in references.items():
        for other in others:
            pair = counts[other], counts[name]
            both = [min(of) for of in zip(sizes[other], sizes[name], strict=True)]
            found = paired_intervals(*pair, mean, highest=highest, pictures=both)
            runs.differences.extend(numbers(name, other, found, values[name] - values[other]))
    return runs


def _by_repeat(scorer: Scorer, parts: Sequence[str], repeats: int) -> Metrics:
    """Return the function from sums, (R * C * P, ...), to numbers by repeat, (R, M * K, ...)."""
    numbers = all_numbers(scorer, parts)

    def each(sums: Array) -> Array:
        return np.stack([numbers(one) for one in sums.reshape(repeats, -1, *sums.shape[1:])])

    return each
