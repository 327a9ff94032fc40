"""AUROC and log-odds of an arm's probabilities of yes on one part, for weighted pictures.

Axes: `N` pictures, `R` resamples; `S` statistics: AUROC, and the mean log-odds of the right answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.files.answers import Answer
from eval.stats.auroc import PairWins, auroc, pair_wins
from eval.stats.intervals import Array

STATISTICS: Final = ("auroc", "log_odds")


class PartScores(NamedTuple):
    """An arm's probabilities on one part, by picture.

    Attributes:
        pictures: Indices of the part's pictures among all pictures.
        pairs: Compared pairs; None if a probability is missing.
        log_odds: Sums over each picture's answers; nan if one is missing or infinite.
        answers: Number of answers about each picture.
    """

    pictures: NDArray[np.int64]
    pairs: PairWins | None
    log_odds: Array
    answers: Array

    def statistics(self, weights: Array) -> Array:
        """Compute AUROC and mean log-odds under weights of all pictures, (R, N) -> (S, R)."""
        own = weights[:, self.pictures]
        nothing = np.full(len(weights), np.nan)
        count = own @ self.answers
        mean = np.divide(own @ self.log_odds, count, out=nothing.copy(), where=count > 0)
        return np.stack([nothing if self.pairs is None else auroc(self.pairs, own), mean])


def part_scores(answers: Sequence[Answer], names: Sequence[str]) -> PartScores:
    """Prepare the scores of an arm's answers to one part.

    Args:
        answers: Answers to the questions of the part.
        names: All pictures of the run, sorted.
    """
    all_pictures = np.searchsorted(names, [answer.item.unit for answer in answers])
    pictures, own = np.unique(all_pictures, return_inverse=True)
    scores = np.array([np.nan if a.p_yes is None else a.p_yes for a in answers])
    positive = np.array([answer.item.label == "yes" for answer in answers])
    pairs = None if np.isnan(scores).any() else pair_wins(scores, positive, own, len(pictures))
    with np.errstate(divide="ignore"):
        log_odds = (np.log(scores) - np.log1p(-scores)) * np.where(positive, 1, -1)
    log_odds[np.isinf(log_odds)] = np.nan
    return PartScores(
        pictures,
        pairs,
        np.bincount(own, log_odds, minlength=len(pictures)).astype(np.float64),
        np.bincount(own, minlength=len(pictures)).astype(np.float64),
    )
