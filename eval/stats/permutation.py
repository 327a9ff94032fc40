"""Sign-flip permutation tests over pictures, and Holm's correction for several of them.

Under the null hypothesis two arms are the same method, so that a picture's answers could as well be
those of the other arm: each picture's difference has either sign with the same probability,
however the answers about one picture depend on each other. McNemar's test over questions would
assume that these answers are independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.stats.intervals import SEED, Array, Metrics, match_shapes

EXACT: Final = 20  # pictures that differ; 2 ** 20 sign patterns
FLIPS: Final = 100_000
_PATTERNS_AT_ONCE: Final = 2**14
# Sums of the same numbers in another order differ in their last digits; they count as equal, and
# such a difference as none.
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """A two-sided sign-flip permutation test.

    Attributes:
        p_value: 1 if no picture differs; nan if the numbers that are compared are not defined.
        pictures: Number of pictures.
        differing: Of these, those in which the two arms differ.
        exact: Whether all sign patterns were looked at, not a random sample of them.
    """

    p_value: float
    pictures: int
    differing: int
    exact: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the test for a JSON file."""
        return {**asdict(self), "p_value": None if np.isnan(self.p_value) else self.p_value}


def sign_flip_test(differences: ArrayLike, *, seed: int = SEED) -> PermutationTest:
    """Test whether the sum of differences is farther from 0 than random signs make it.

    Args:
        differences: What each picture adds to the difference of two arms, shape (N,).
        seed: Of the random sign patterns, where they are too many to look at all.
    Returns:
        The test: exact for up to 20 pictures that differ, else from 100,000 random patterns, whose
        p-value is (1 + patterns at least as far from 0) / (1 + patterns).
    """
    every = np.asarray(differences, dtype=np.float64)  # (N,)
    moved = every[~(np.abs(every) <= _TOLERANCE * np.nansum(np.abs(every)))]  # (D,); nan is no 0
    pictures, differing = len(every), len(moved)
    exact = differing <= EXACT
    observed = abs(float(moved.sum()))
    if not differing or np.isnan(observed):
        return PermutationTest(nan if np.isnan(observed) else 1.0, pictures, differing, exact)
    bound = observed - _TOLERANCE * float(np.abs(moved).sum())
    patterns = _all_signs(differing) if exact else _random_signs(differing, seed)
    extreme = sum(int((np.abs(signs @ moved) >= bound).sum()) for signs in patterns)
    p_value = extreme / 2**differing if exact else (1 + extreme) / (1 + FLIPS)
    return PermutationTest(p_value, pictures, differing, exact)


def contributions(first: ArrayLike, second: ArrayLike, metrics: Metrics) -> Array:
    """Return what each picture adds to the difference of two arms in metrics, shape (M, N).

    They sum to the difference, so that a test of them weighs questions as the metric does. The
    metrics must be linear in the counts in which the arms differ, as accuracy is: its denominator
    counts questions, which are the same.

    Args:
        first: Counts of one arm, shape (N, C), as `bootstrap_intervals` takes them.
        second: Counts of the other arm on the same pictures in the same order, shape (N, C).
        metrics: From sums over pictures, shape (C, ...), to metrics, shape (M, ...).
    Raises:
        EvaluationError: If the shapes differ.
    """
    one, other = match_shapes(
        np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    )
    sums = one.sum(axis=0)[:, None]  # (C, 1)
    return np.asarray(metrics(sums + (other - one).T) - metrics(sums))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order; nan stays and counts for none.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted((p, at) for at, p in enumerate(p_values) if not np.isnan(p))
    adjusted, highest = [nan] * len(p_values), 0.0
    for rank, (p_value, at) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_value))
        adjusted[at] = highest
    return adjusted


def _all_signs(count: int) -> Iterator[Array]:
    """Yield all sign patterns, each (R, count)."""
    total = 2**count
    for start in range(0, total, _PATTERNS_AT_ONCE):
        numbers = np.arange(start, min(start + _PATTERNS_AT_ONCE, total))
        yield _signs((numbers[:, None] >> np.arange(count)) & 1)


def _random_signs(count: int, seed: int) -> Iterator[Array]:
    """Yield random sign patterns, each (R, count), FLIPS in all."""
    rng = np.random.default_rng(seed)
    size = max(1, min(FLIPS, 2_000_000 // count))
    for start in range(0, FLIPS, size):
        yield _signs(rng.integers(0, 2, (min(size, FLIPS - start), count), dtype=np.int8))


def _signs(bits: NDArray[Any]) -> Array:
    return 2.0 * bits - 1.0
