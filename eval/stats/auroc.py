"""AUROC as a quadratic form over pictures, so that resampling pictures needs no sorting.

AUROC is the share of pairs of a positive and a negative in which the positive has the higher score;
ties count half (Mann-Whitney U over the number of pairs). Let U[i, j] be the sum over positives of
picture i and negatives of picture j, and w how often each picture was drawn. Then

    AUROC(w) = w' U w / ((w' P)(w' Q))

where P and Q are the positives and negatives of each picture.

Axes: `N` pictures, `R` resamples.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_COMPARED_AT_ONCE: Final = 4_000_000  # pairs; some 32 MB


class PairWins(NamedTuple):
    """Results of all comparisons of a positive with a negative, by picture.

    Attributes:
        wins: Pairs that the positive wins, ties counting half, by its picture and the negative's,
            shape (N, N).
        positives: Positives of each picture, shape (N,).
        negatives: Negatives of each picture, shape (N,).
    """

    wins: Array
    positives: Array
    negatives: Array


def pair_wins(
    scores: Array, is_positive: NDArray[np.bool_], picture: NDArray[np.int64], pictures: int
) -> PairWins:
    """Compare all positives with all negatives.

    Args:
        scores: One per answer, shape (A,).
        is_positive: Whether the answer's label is the positive one, shape (A,).
        picture: The answer's picture, 0..N-1, shape (A,).
        pictures: Number of pictures N.
    """
    high, low = scores[is_positive], scores[~is_positive]
    of_high, of_low = picture[is_positive], picture[~is_positive]
    by_picture = np.zeros((pictures, len(low)))
    together = max(1, _COMPARED_AT_ONCE // max(1, len(low)))
    for start in range(0, len(high), together):
        some = high[start : start + together, None]
        won = (some > low) + 0.5 * (some == low)
        np.add.at(by_picture, of_high[start : start + together], won)
    wins = np.zeros((pictures, pictures))
    np.add.at(wins.T, of_low, by_picture.T)
    return PairWins(
        wins,
        np.bincount(of_high, minlength=pictures).astype(np.float64),
        np.bincount(of_low, minlength=pictures).astype(np.float64),
    )


def auroc(pairs: PairWins, weights: Array) -> Array:
    """Return AUROC with weighted pictures, (R, N) -> (R,); nan without pairs."""
    won = ((weights @ pairs.wins) * weights).sum(-1)
    compared = (weights @ pairs.positives) * (weights @ pairs.negatives)
    found = np.full(len(weights), np.nan)
    np.divide(won, compared, out=found, where=compared > 0)
    return found
