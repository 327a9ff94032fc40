"""Metrics of a benchmark, and the interface that computes them from answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.files.answers import Answer
from eval.stats.intervals import Array


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a benchmark.

    Attributes:
        name: Its name in `metrics.json`.
        heading: Heading of its column; empty for the name.
        wide: Whether it is only in the wide table.
        factor: Factor in tables: 100 for percent.
        digits: Decimal places in tables.
        summed: Whether a total over parts is their sum; otherwise it is their mean.
        highest: Largest value in one part, where the smallest is 0; None if it has no bound.
    """

    name: str
    heading: str = ""
    wide: bool = False
    factor: float = 100.0
    digits: int = 2
    summed: bool = False
    highest: float | None = 1.0

    @property
    def percent(self) -> bool:
        """Whether tables show it in percent."""
        return self.factor == 100 and self.highest is not None

    def bound(self, members: int) -> float | None:
        """Return its largest value over several parts."""
        return self.highest and self.highest * (members if self.summed else 1)


class Scorer(Protocol):
    """Computes metrics from answers.

    Arms are compared by the first metric. If answers are right or wrong, it is tested, and must be
    linear in the counts, see `contributions`.
    """

    @property
    def pooled(self) -> bool:
        """Whether a total over parts is computed from their counts, not from their metrics."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """The metrics, in the order of `numbers`."""

    def counts(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return the counts of the answers about one unit (a picture) in one part."""

    def numbers(self, sums: Array) -> Array:
        """Return the metrics from sums of counts, (C, ...) -> (M, ...)."""

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None if it is neither, so that nothing is tested."""

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the totals and their parts, by name; the first total is the primary one."""
