"""Uncertainty of metrics: bootstrap intervals over images, paired differences, McNemar's test.

A metric that is 0/0 is nan, printed as "n/a". If all images give the same value, a bootstrap shows
no variation, and Wilson's interval is used.

The unit tests compare everything with scipy.stats. It is not used here, since importing it would
take longer than all computations.

Axes: `N` images, `C` counts that add up over images, `M` metrics, `R` resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from math import copysign, isclose, isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.errors import EvaluationError

Array = NDArray[np.float64]
Metrics = Callable[[Array], Array]  # (C, ...) sums over images -> (M, ...)

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054  # the quantile of the normal distribution for that share
RESAMPLES: Final = 10_000
SEED: Final = 0
# Number of image indices that are drawn at once: these fit into a processor's cache.
_DRAWN_AT_ONCE: Final = 100_000
NONE: Final = "n/a"
FEW: Final = 50


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval.

    Attributes:
        value: The metric on all data; nan if it is 0/0.
        low: Lower end; nan if there is only one image, or if all images give the same value and the
            metric has no bounds.
        high: Upper end; nan in the same cases.
        wilson: Whether it is Wilson's interval, because all images give the same value.
    """

    value: float
    low: float
    high: float
    wilson: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the interval for a JSON file, with null instead of nan."""
        ends = {name: getattr(self, name) for name in ("value", "low", "high")}
        found: dict[str, Any] = {n: None if isnan(end) else end for n, end in ends.items()}
        return found | ({"wilson": True} if self.wilson else {})

    def percent(self, digits: int = 1) -> str:
        """Return value and ends times 100 for a table, such as 45.0 (40.8..49.4)."""
        if isnan(self.value):
            return NONE
        value = f"{100 * self.value:.{digits}f}"
        return (
            value if isnan(self.low) else f"{value} ({100 * self.low:.1f}..{100 * self.high:.1f})"
        )

    def points(self, digits: int = 1) -> str:
        """Return a difference times 100 with ends and signs, such as +3.8 (-0.6 to +8.2)."""
        if isnan(self.value):
            return NONE
        # Adding 0.0 turns -0.0 into +0.0.
        value, low, high = (
            f"{round(100 * end, digits) + 0.0:+.{digits}f}"
            for end in (self.value, self.low, self.high)
        )
        return f"{value} (no interval)" if isnan(self.low) else f"{value} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test on two arms that answered the same questions.

    Attributes:
        gained: Questions that only the second arm answers correctly.
        lost: Questions that only the first arm answers correctly.
        p_value: Two-sided; 1 if both are 0.
    """

    gained: int
    lost: int
    p_value: float

    def as_dict(self) -> dict[str, float]:
        """Return the test for a JSON file."""
        return asdict(self)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Array:
    """Divide elementwise; a ratio whose denominator is zero is nan."""
    quotient = np.full(np.shape(denominator), nan)
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient


def bootstrap_intervals(
    counts: ArrayLike,
    metrics: Metrics,
    *,
    highest: Sequence[float | None] | None = None,
    pictures: Sequence[int] | None = None,
    seed: int = SEED,
    n_resamples: int = RESAMPLES,
) -> list[Interval]:
    """Return each metric with its 95 % percentile bootstrap interval, resampled by image.

    All counts of an image are drawn together, because its questions, or its caption's objects, are
    not independent. All metrics are computed on the same resamples. A resample in which a metric is
    0/0 does not count for that metric.

    Args:
        counts: What each image adds to each count, shape (N, C).
        metrics: Function from sums over images, shape (C, ...), to metrics, shape (M, ...).
        highest: Largest value of each metric, whose range is 0 to this value, or minus to plus this
            value for a difference; None for a metric without bounds. If all resamples give the same
            value, a metric with bounds has Wilson's interval, and one without has none.
        pictures: Number of images that each metric is computed from, such as those with a predicted
            yes for a precision; a metric of one image has no interval. None to count the images
            whose own metric is not 0/0.
        seed: Seed of the resampling.
        n_resamples: Number of resamples.
    Returns:
        One interval per metric.
    Raises:
        EvaluationError: If there is no image.
    """
    table = np.asarray(counts, dtype=np.float64)  # (N, C)
    images = len(table)
    if not images:
        raise EvaluationError("no images to compute an interval from")
    values = metrics(table.sum(axis=0))
    if images == 1:
        return [Interval(value, nan, nan) for value in values.tolist()]
    drawn = _resample(table, metrics, seed=seed, n_resamples=n_resamples)  # (M, R)
    defined = ~np.isnan(values)
    ends = np.full((2, len(values)), nan)
    tail = (1 - CONFIDENCE) / 2
    # A metric that is defined on all data is defined on a resample equal to the data.
    ends[:, defined] = np.nanquantile(drawn[defined], [tail, 1 - tail], axis=1)
    bounds = highest or [None] * len(values)
    sizes = pictures or (~np.isnan(metrics(table.T))).sum(axis=1).tolist()
    return [
        _interval_of(value, low, high, size, bound)
        for value, low, high, bound, size in zip(
            values.tolist(), *ends.tolist(), bounds, sizes, strict=True
        )
    ]


def _interval_of(
    value: float, low: float, high: float, size: int, highest: float | None
) -> Interval:
    """Return a value with its bootstrap interval, Wilson's interval, or no interval.

    Args:
        value: The metric on all data.
        low: Lower end.
        high: Upper end.
        size: Number of images; a single one gives no interval.
        highest: As in `bootstrap_intervals`.
    """
    if size < 2:
        return Interval(value, nan, nan)
    # Sums of the same numbers in another order differ in their last digits.
    if not isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        return Interval(value, low, high)
    return Interval(value, nan, nan) if highest is None else wilson_interval(value, size, highest)


def _resample(table: Array, metrics: Metrics, *, seed: int, n_resamples: int) -> Array:
    """Return the metrics of resamples of a table's rows, (N, C) -> (M, R).

    They are the resamples of `scipy.stats.bootstrap`, drawn in its order.
    """
    images, rng = len(table), np.random.default_rng(seed)
    sums = np.empty((n_resamples, table.shape[1]))
    size = max(1, _DRAWN_AT_ONCE // images)
    for start in range(0, n_resamples, size):
        part = sums[start : start + size]
        drawn = rng.integers(0, images, (len(part), images))
        # Count how often each image was drawn, then multiply: `table[drawn]` would take C times the
        # memory and ten times as long.
        drawn += np.arange(len(part))[:, None] * images
        times = np.bincount(drawn.ravel(), minlength=drawn.size)
        part[:] = times.reshape(drawn.shape) @ table
    return metrics(sums.T)


def wilson_interval(value: float, size: int, highest: float = 1.0) -> Interval:
    """Return Wilson's score interval of a share, or of a difference of shares.

    Args:
        value: The share times `highest`, of either sign; the interval of a zero difference is
            symmetric.
        size: Number of images, the independent units.
        highest: The value for a share of 1.
    """
    share, z = min(abs(value) / highest, 1.0), _Z
    scale = 1 + z**2 / size
    middle = (share + z**2 / (2 * size)) / scale
    reach = z * (share * (1 - share) / size + z**2 / (4 * size**2)) ** 0.5 / scale
    low, high = max(middle - reach, 0.0), min(middle + reach, 1.0)
    # For shares of 0 and 1 these ends are exact; rounding could miss them.
    low, high = (0.0 if share == 0 else low), (1.0 if share == 1 else high)
    low, high = sorted(copysign(end * highest, value) for end in (low, high))
    return Interval(value, low, high, wilson=True)


def paired_intervals(
    first: ArrayLike,
    second: ArrayLike,
    metrics: Metrics,
    *,
    highest: Sequence[float | None] | None = None,
    pictures: Sequence[int] | None = None,
    seed: int = SEED,
    n_resamples: int = RESAMPLES,
) -> list[Interval]:
    """Return second minus first for each metric; both arms are resampled by the same images.

    Args:
        first: Counts of one arm, shape (N, C), as in `bootstrap_intervals`.
        second: Counts of the other arm on the same images in the same order, shape (N, C).
        metrics: Function from sums over images, shape (C, ...), to metrics, shape (M, ...).
        highest: As in `bootstrap_intervals`.
        pictures: As in `bootstrap_intervals`.
        seed: Seed of the resampling.
        n_resamples: Number of resamples.
    Raises:
        EvaluationError: If the shapes differ, or there is no image.
    """
    one, other = match_shapes(np.asarray(first), np.asarray(second))

    def difference(sums: Array) -> Array:
        half = len(sums) // 2
        return metrics(sums[half:]) - metrics(sums[:half])

    both = np.concatenate([one, other], axis=1)  # (N, 2 * C)
    found = bootstrap_intervals(
        both, difference, highest=highest, pictures=pictures, seed=seed, n_resamples=n_resamples
    )
    # If no image differs, the true difference may have either sign.
    return [
        Interval(x.value, -x.high, x.high, x.wilson) if x.wilson and x.value == 0 else x
        for x in found
    ]


def few_pictures_note(pictures: int, name: str = "picture") -> list[str]:
    """Return a note if there are too few pictures for a bootstrap, else nothing.

    Args:
        pictures: Number of pictures.
        name: Their name; a benchmark may resample something else.
    """
    if pictures >= FEW:
        return []
    if pictures == 1:
        return [f"note: 1 {name}, so there are no intervals"]
    return [
        f"note: {pictures} {name}(s), fewer than {FEW}: bootstrap intervals are too narrow for so "
        "few; treat the numbers as preliminary"
    ]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Test whether two arms are right equally often on the same questions.

    The test assumes independent pairs: captions or verdicts, one per image. Several questions about
    one image are not independent, see `eval.stats.permutation`.

    Args:
        first: Whether one arm is right, question by question.
        second: Whether the other arm is, on the same questions in the same order.
    Raises:
        EvaluationError: If the lengths differ.
    """
    one, other = match_shapes(np.asarray(first, dtype=bool), np.asarray(second, dtype=bool))
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    discordant = gained + lost
    # Binomial coefficients of one tail, each from the previous one; whole numbers.
    ways = accumulate(
        range(min(gained, lost)), lambda way, k: way * (discordant - k) // (k + 1), initial=1
    )
    return McNemar(gained, lost, min(2 * sum(ways) / 2**discordant, 1.0))


def match_shapes(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two arms' tables after checking that their shapes are equal.

    Raises:
        EvaluationError: If they are not.
    """
    if first.shape != second.shape:
        raise EvaluationError(
            f"the two arms have shapes {first.shape} and {second.shape}; "
            "a paired comparison needs the same images or questions in the same order"
        )
    return first, second
