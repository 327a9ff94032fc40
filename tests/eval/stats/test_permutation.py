"""Permutation tests: scipy's, plain loops, and what they do under a null and an effect."""

from __future__ import annotations

from itertools import product
from math import isnan, nan

import numpy as np
import pytest
from scipy import stats

from eval.errors import EvaluationError
from eval.stats.intervals import Array, mcnemar, ratio
from eval.stats.permutation import EXACT, contributions, holm, sign_flip_test

DATA_SETS = 400
PICTURES = 100
MOST = 10  # questions about a picture; at least one


@pytest.mark.parametrize("seed", range(5))
def test_few_pictures_are_tested_exactly(seed: int) -> None:
    moved = np.random.default_rng(seed).integers(-3, 4, 11) / 7
    observed = abs(moved.sum())
    patterns = [
        abs(sum(s * d for s, d in zip(signs, moved, strict=True))) >= observed - 1e-12
        for signs in product([-1, 1], repeat=len(moved))
    ]

    found = sign_flip_test(moved)

    assert found.exact
    assert (found.pictures, found.differing) == (11, int((moved != 0).sum()))
    assert found.p_value == pytest.approx(sum(patterns) / len(patterns), abs=1e-15)


def test_twenty_pictures_that_differ_are_the_most_that_are_looked_at_whole() -> None:
    assert EXACT == 20
    exact = sign_flip_test([1.0] * 20 + [0.0] * 400)
    sampled = sign_flip_test([1.0] * 21)

    assert (exact.p_value, exact.exact) == (2 / 2**20, True)
    assert (sampled.p_value, sampled.exact) == (1 / 100_001, False)


def test_many_pictures_are_tested_as_scipy_does() -> None:
    moved = np.random.default_rng(4).normal(0.1, 1, 300)
    expected = stats.permutation_test(
        (moved,), lambda x, axis: x.mean(axis=axis), vectorized=True, permutation_type="samples",
        n_resamples=50_000, batch=2000, rng=5,
    ).pvalue  # fmt: skip

    found = sign_flip_test(moved)

    assert not found.exact
    assert found.p_value == pytest.approx(expected, abs=0.006)
    assert found == sign_flip_test(moved), "the seed makes it repeatable"
    assert found.p_value != sign_flip_test(moved, seed=1).p_value
    assert sign_flip_test(-moved).p_value == pytest.approx(found.p_value, abs=0.006)


def test_nothing_that_differs_is_no_evidence() -> None:
    found = sign_flip_test([0.0] * 30)

    assert (found.p_value, found.differing) == (1.0, 0)
    assert sign_flip_test([]).p_value == 1.0


def test_a_difference_that_is_rounding_is_none() -> None:
    """What a picture gains in one file and loses in another."""
    moved = [0.01] * 20 + [2.0**-60] * 5

    found = sign_flip_test(moved)

    assert (found.differing, found.exact) == (20, True)


def test_what_is_not_defined_has_no_p_value() -> None:
    found = sign_flip_test([0.5, nan])

    assert isnan(found.p_value)
    assert found.as_dict()["p_value"] is None


def right(sums: Array) -> Array:
    return np.stack([ratio(sums[0], sums[1]), ratio(sums[2], sums[1])])


def test_contributions_sum_to_the_difference_picture_by_picture() -> None:
    rng = np.random.default_rng(3)
    asked = rng.integers(1, 7, 40)
    one, other = (
        np.stack([rng.integers(0, asked + 1), asked, rng.integers(0, asked + 1)], axis=1)
        for _ in range(2)
    )

    found = contributions(one, other, right)

    assert found.shape == (2, 40)
    assert found[0] == pytest.approx((other[:, 0] - one[:, 0]) / asked.sum(), abs=1e-15)
    assert found.sum(axis=1) == pytest.approx(right(other.sum(axis=0)) - right(one.sum(axis=0)))
    with pytest.raises(EvaluationError, match="same images"):
        contributions(one, other[:-1], right)


def rejected(dependent: bool, effect: float, seed: int) -> tuple[float, float]:
    """Return how often the permutation test and McNemar's over questions reject at 5 %.

    Two arms answer one to ten questions about each of 100 pictures and disagree on 30 % of them:
    where answers are dependent, on all questions about a picture, and in one direction. A
    disagreement is a gain with the probability (1 + effect) / 2.
    """
    rng = np.random.default_rng(seed)
    flips = questions = 0
    for _ in range(DATA_SETS):
        shape = (PICTURES, 1 if dependent else MOST)
        differs = rng.random(shape) < 0.3
        gains = rng.random(shape) < (1 + effect) / 2
        asked = np.arange(MOST) < rng.integers(1, MOST + 1, PICTURES)[:, None]
        moved = differs * np.where(gains, 1, -1) * asked
        flips += sign_flip_test(moved.sum(axis=1)).p_value < 0.05
        other = moved.ravel() == 1
        one = moved.ravel() == -1
        questions += mcnemar(one.tolist(), other.tolist()).p_value < 0.05
    return flips / DATA_SETS, questions / DATA_SETS


def test_a_true_null_is_rejected_as_often_as_stated_also_where_answers_move_together() -> None:
    flips, questions = rejected(dependent=True, effect=0.0, seed=11)

    assert 0.03 <= flips <= 0.07
    assert questions > 0.14, "what McNemar's test over questions would do"


def test_the_power_is_mcnemars_where_questions_are_independent() -> None:
    flips, questions = rejected(dependent=False, effect=0.2, seed=12)

    assert 0.5 < questions < 0.95, "neither hopeless nor sure"
    assert abs(flips - questions) <= 0.05


def test_holm_is_that_of_a_plain_loop() -> None:
    # Holm (1979): the k-th smallest of n is multiplied by n - k + 1, and none falls below another.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    with_none = holm([nan, 0.01, 0.02])
    assert isnan(with_none[0])
    assert with_none[1:] == pytest.approx([0.02, 0.02])
