"""Test whether numbers differ between answers with and without a label; the unit is the picture.

Answers about one picture depend on each other: they share its numbers, and a picture that a model
misreads has several wrong answers. So a permutation test over answers would reject far too often.
Here whole pictures are exchanged.

Null hypothesis: the labels of a picture's answers are independent of its numbers. Then the labels
of one picture's answers, in their order, could as well be those of another picture, and all such
exchanges are equally likely. Only pictures with equally many answers are exchanged:

- A list of labels does not fit a picture with more or fewer answers. Cutting lists, or exchanging a
  picture's share of labels instead, would change the number of labels or compare shares of one
  answer with shares of ten, which vary less: these are not exchangeable under the null hypothesis.
- The number of answers may correlate with both the numbers and the labels (POPE asks more different
  questions about a picture with more objects). Exchanges that keep it do not mistake this for an
  association.

The price is power, not validity: a picture whose number of answers is unique is never exchanged.
The label of the k-th answer moves to the k-th answer, so that a type of question with the same
position for all pictures is not mistaken for an association either.

The statistic is the reported difference: the mean over answers without the label minus the mean
over answers with it. Exchanges keep both numbers of answers. The test is two-sided: an exchange
counts if its difference is at least as far from 0.

Axes: `A` answers, `L` quantities (layers), `N` pictures, `P` pictures with `Q` answers each, `R`
arrangements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import factorial, nan, prod
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.stats.intervals import SEED, Array, Interval, bootstrap_intervals, ratio

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ARRANGEMENTS: Final = 10_000  # all arrangements if there are no more, else this many random ones
_LABELS_AT_ONCE: Final = 2_000_000
# Sums of the same numbers in another order differ in their last digits; they count as equal.
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Association:
    """One quantity's means over two groups of answers.

    Attributes:
        without: Mean over answers without the label, with its interval.
        labelled: Mean over answers with it.
        difference: Mean without the label minus mean with it.
        p_value: P-value of the permutation test over pictures; nan if no exchange changes the
            difference, for instance if the quantity is constant, or all labels are equal.
    """

    without: Interval
    labelled: Interval
    difference: Interval
    p_value: float


class _Stratum(NamedTuple):
    """Pictures with equally many answers.

    Attributes:
        values: Quantities of their answers, (P, Q, L).
        kinds: Index of each picture's list of labels, (P,).
        lists: Distinct lists of labels, (kinds, Q).
    """

    values: Array
    kinds: Ints
    lists: Array

    def number(self) -> int:
        """Return the number of different arrangements."""
        times = Counter(self.kinds.tolist()).values()
        return factorial(len(self.kinds)) // prod(map(factorial, times))

    def sums(self, kinds: Ints) -> Array:
        """Return sums of quantities over labelled answers under arrangements, (R, P) -> (R, L)."""
        labels = self.lists[kinds].reshape(len(kinds), -1)  # (R, P * Q)
        return np.asarray(labels @ self.values.reshape(labels.shape[1], -1))


def associations(
    values: Array, labelled: Bools, picture: Ints, *, seed: int = SEED
) -> list[Association]:
    """Compare answers without a label to answers with it, in several quantities at once.

    Args:
        values: Quantities of each answer, (A, L).
        labelled: Whether an answer has the label, (A,).
        picture: The answer's picture, any integers, (A,).
        seed: Seed of the resampling and of random arrangements.
    Returns:
        One per quantity. A mean over no answers is nan. Intervals resample pictures; there is no
        interval if all resamples give the same value.
    Raises:
        EvaluationError: If there is no answer.
    """
    _, place = np.unique(picture, return_inverse=True)
    pictures = int(place.max()) + 1 if len(place) else 0
    groups = (~labelled, labelled)
    size = values.shape[1]
    counts = np.zeros((pictures, 2 * (1 + size)))
    for at, of in enumerate(groups):
        np.add.at(counts[:, at], place[of], 1.0)
        first = 2 + at * size
        np.add.at(counts[:, first : first + size], place[of], values[of])

    def means(sums: Array) -> Array:
        without = ratio(sums[2 : 2 + size], np.broadcast_to(sums[0], (size, *sums.shape[1:])))
        with_it = ratio(sums[2 + size :], np.broadcast_to(sums[1], (size, *sums.shape[1:])))
        return np.concatenate([without, with_it, without - with_it])

    of_group = [int((counts[:, at] > 0).sum()) for at in range(2)]
    sizes = [number for number in (*of_group, min(of_group)) for _ in range(size)]
    found = bootstrap_intervals(counts, means, pictures=sizes, seed=seed)
    p_values = permutation_p_values(values, labelled, picture, seed=seed)
    means_of, differences = found[: 2 * size], found[2 * size :]
    columns = zip(means_of[:size], means_of[size:], differences, p_values, strict=True)
    return [Association(*one) for one in columns]


def permutation_p_values(
    values: Array, labelled: Bools, picture: Ints, *, seed: int = SEED
) -> list[float]:
    """Return the two-sided p-value of each quantity; arguments as in `associations`.

    Exact if there are up to 10,000 different arrangements; else from 10,000 random ones, as
    (1 + at least as far from 0) / (1 + 10,000).
    """
    size, total, chosen = values.shape[1], len(labelled), int(labelled.sum())
    if chosen in (0, total):
        return [nan] * size
    centred = values - values.mean(axis=0)
    strata = _strata(centred, labelled, picture)
    number = prod(stratum.number() for stratum in strata)
    exact = number <= ARRANGEMENTS
    sums = _all_sums(strata) if exact else _random_sums(strata, seed)  # (R, L)
    observed = centred[labelled].sum(axis=0)  # (L,)
    slack = _TOLERANCE * np.abs(centred).sum(axis=0)
    # The sum over all answers is 0, so the difference of the means is the sum over labelled answers
    # times a constant.
    extreme = (np.abs(sums) >= np.abs(observed) - slack).sum(axis=0)
    p_values = extreme / number if exact else (1 + extreme) / (1 + ARRANGEMENTS)
    p_values[(np.abs(sums - observed) <= slack).all(axis=0)] = nan
    found: list[float] = p_values.tolist()
    return found


def _strata(values: Array, labelled: Bools, picture: Ints) -> list[_Stratum]:
    """Return pictures by their number of answers; a picture's answers keep their order."""
    order = np.argsort(picture, kind="stable")
    _, first, counts = np.unique(picture[order], return_index=True, return_counts=True)
    strata = []
    for count in np.unique(counts).tolist():
        answers = order[first[counts == count][:, None] + np.arange(count)]  # (P, Q)
        lists, kinds = np.unique(labelled[answers], axis=0, return_inverse=True)
        # In numpy 2.0 the inverse has the dimensions of its input.
        strata.append(_Stratum(values[answers], kinds.reshape(-1), lists.astype(np.float64)))
    return strata


def _all_sums(strata: Sequence[_Stratum]) -> Array:
    """Return the sums over labelled answers of all different arrangements, (R, L)."""
    sums = np.zeros((1, strata[0].values.shape[-1]))
    for stratum in strata:
        # All combinations of arrangements of different strata.
        own = stratum.sums(np.array(list(_arrangements(stratum.kinds.tolist()))))
        sums = (sums[:, None] + own).reshape(-1, sums.shape[1])
    return sums


def _arrangements(kinds: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all different orders of a list."""
    if not kinds:
        yield ()
        return
    for first in sorted(set(kinds)):
        rest = list(kinds)
        rest.remove(first)
        for others in _arrangements(rest):
            yield (first, *others)


def _random_sums(strata: Sequence[_Stratum], seed: int) -> Array:
    """Return the sums over labelled answers of random arrangements, (R, L)."""
    rng = np.random.default_rng(seed)
    answers = max(stratum.values.shape[0] * stratum.values.shape[1] for stratum in strata)
    together = max(1, _LABELS_AT_ONCE // answers)
    found = []
    for start in range(0, ARRANGEMENTS, together):
        count = min(together, ARRANGEMENTS - start)
        each = [
            stratum.sums(rng.permuted(np.tile(stratum.kinds, (count, 1)), axis=1))
            for stratum in strata
        ]
        found.append(np.sum(each, axis=0))
    return np.concatenate(found)
