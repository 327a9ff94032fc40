"""How sure a number is: bootstrap intervals over images, paired differences, McNemar's test.

scipy.stats takes half a second to import, so the two functions that need it do it, not `--help`.

Axes: `N` images, `C` counts that add up over images, `M` metrics, `R` resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.errors import EvaluationError

Array = NDArray[np.float64]
Metrics = Callable[[Array], Array]  # (C, ...) sums over images -> (M, ...)

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
SEED: Final = 0
# Image indices that are drawn at a time: some 40 MB, however many images there are.
_DRAWN_AT_ONCE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval.

    Attributes:
        value: The metric on all the data.
        low: Lower end; nan if there is one image only, which says nothing of others.
        high: Upper end; nan likewise.
    """

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the interval for a JSON file, which has null where there is no number."""
        return {name: None if isnan(end) else end for name, end in asdict(self).items()}

    def percent(self, digits: int = 1) -> str:
        """Return value and ends times 100 for a table, as 45.0 (40.8..49.4)."""
        value = f"{100 * self.value:.{digits}f}"
        return (
            value if isnan(self.low) else f"{value} ({100 * self.low:.1f}..{100 * self.high:.1f})"
        )

    def points(self, digits: int = 1) -> str:
        """Return a difference times 100 with its ends and signs, as +3.8 (-0.6 to +8.2)."""
        # Adding 0.0 makes +0.0 of what would be printed as -0.0.
        value, low, high = (
            f"{round(100 * end, digits) + 0.0:+.{digits}f}"
            for end in (self.value, self.low, self.high)
        )
        return f"{value} (no interval)" if isnan(self.low) else f"{value} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test on two arms that answered the same questions.

    Attributes:
        gained: Questions that only the second arm has right.
        lost: Questions that only the first arm has right.
        p_value: Two-sided; 1 if neither arm has anything right that the other has not.
    """

    gained: int
    lost: int
    p_value: float

    def as_dict(self) -> dict[str, float]:
        """Return the test for a JSON file."""
        return asdict(self)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Array:
    """Divide elementwise; a ratio whose denominator is zero is 0."""
    quotient = np.zeros(np.shape(denominator))
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient


def bootstrap_intervals(
    counts: ArrayLike, metrics: Metrics, *, seed: int = SEED, n_resamples: int = RESAMPLES
) -> list[Interval]:
    """Return each metric with its 95 % percentile bootstrap interval, resampled by image.

    Whatever an image brings is drawn together: its questions, or its caption's objects, are not
    independent of each other. All metrics are computed on the same resamples.

    Args:
        counts: What each image adds to each count, shape (N, C).
        metrics: From sums over images, shape (C, ...), to metrics, shape (M, ...).
        seed: Seed of the resampling.
        n_resamples: Number of resamples.
    Returns:
        One interval per metric.
    Raises:
        EvaluationError: If there is no image.
    """
    from scipy import stats

    table = np.asarray(counts, dtype=np.float64)  # (N, C)
    images = len(table)
    if not images:
        raise EvaluationError("no images to compute an interval from")
    values = metrics(table.sum(axis=0)).tolist()
    if images == 1:
        return [Interval(value, nan, nan) for value in values]

    def statistic(drawn: NDArray[np.int64], axis: int) -> Array:
        # How often each image was drawn, then one product: gathering `table[drawn]` takes C times
        # the memory and an order of magnitude more time.
        rows = np.arange(len(drawn))[:, None] * images
        times = np.bincount((drawn + rows).ravel(), minlength=drawn.size)
        return metrics((times.reshape(drawn.shape) @ table).T)  # (R, N) -> (C, R) -> (M, R)

    found = stats.bootstrap(
        (np.arange(images),),
        statistic,
        n_resamples=n_resamples,
        batch=max(1, _DRAWN_AT_ONCE // images),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [
        Interval(*numbers)
        for numbers in zip(values, found.low.tolist(), found.high.tolist(), strict=True)
    ]


def paired_intervals(
    first: ArrayLike,
    second: ArrayLike,
    metrics: Metrics,
    *,
    seed: int = SEED,
    n_resamples: int = RESAMPLES,
) -> list[Interval]:
    """Return second minus first for each metric, with both arms resampled by the same images.

    Args:
        first: Counts of one arm, shape (N, C), as `bootstrap_intervals` takes them.
        second: Counts of the other arm on the same images in the same order, shape (N, C).
        metrics: From sums over images, shape (C, ...), to metrics, shape (M, ...).
        seed: Seed of the resampling.
        n_resamples: Number of resamples.
    Raises:
        EvaluationError: If the shapes differ, or there is no image.
    """
    one, other = _alike(np.asarray(first), np.asarray(second))

    def difference(sums: Array) -> Array:
        half = len(sums) // 2
        return metrics(sums[half:]) - metrics(sums[:half])

    both = np.concatenate([one, other], axis=1)  # (N, 2 * C)
    return bootstrap_intervals(both, difference, seed=seed, n_resamples=n_resamples)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Test whether two arms are right equally often on the same questions.

    The test takes questions as independent, which questions about one image need not be.

    Args:
        first: Whether one arm is right, question by question.
        second: Whether the other arm is, on the same questions in the same order.
    Raises:
        EvaluationError: If the lengths differ.
    """
    from scipy import stats

    one, other = _alike(np.asarray(first, dtype=bool), np.asarray(second, dtype=bool))
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    discordant = gained + lost
    p_value = float(stats.binomtest(gained, discordant).pvalue) if discordant else 1.0
    return McNemar(gained, lost, p_value)


def _alike(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if first.shape != second.shape:
        raise EvaluationError(
            f"the two arms have shapes {first.shape} and {second.shape}; "
            "a paired comparison needs the same images or questions in the same order"
        )
    return first, second
