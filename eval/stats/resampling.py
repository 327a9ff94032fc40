"""Bootstrap of statistics that are no function of sums: resamples as weights of pictures.

A resample of N pictures is how often each was drawn. The draws follow from a seed, so that arms
are compared on the same ones.

Axes: `N` pictures, `R` resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from typing import Final

import numpy as np

from eval.stats.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Array,
    Interval,
    interval_of,
)

# Numbers that are drawn at a time: some 8 MB.
_DRAWN_AT_ONCE: Final = 1_000_000


def resample_weights(
    pictures: int, *, seed: int = SEED, n_resamples: int = RESAMPLES
) -> Iterator[Array]:
    """Yield how often each picture is drawn in each resample, shape (R, N), R at a time.

    Args:
        pictures: Number of pictures N.
        seed: Seed of the draws.
        n_resamples: Number of resamples in total.
    """
    generator = np.random.default_rng(seed)
    together = max(1, _DRAWN_AT_ONCE // pictures)
    for start in range(0, n_resamples, together):
        rows = min(together, n_resamples - start)
        drawn = generator.integers(0, pictures, (rows, pictures))
        drawn += np.arange(rows)[:, None] * pictures
        counts = np.bincount(drawn.ravel(), minlength=rows * pictures)
        yield counts.reshape(rows, pictures).astype(np.float64)


def percentile_interval(
    value: float, samples: Array, pictures: int, *, highest: float | None = None
) -> Interval:
    """Return a value with its 95 % percentile interval.

    Args:
        value: The statistic on all pictures.
        samples: The statistic on each resample, shape (R,); nan where it is 0/0, which is left out.
        pictures: Number of pictures; one says nothing of others, so that there is no interval.
        highest: The largest value that it can have, from 0, or from minus that for a difference;
            None for one without bounds. Where all resamples give the same, it is Wilson's with
            bounds, and there is none without.
    """
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(known):
        return Interval(value, nan, nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail]).tolist()
    return interval_of(value, low, high, pictures, highest)
