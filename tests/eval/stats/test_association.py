"""Two groups of answers: plain loops, all exchanges, a null, and a planted difference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from math import isnan
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from eval.errors import EvaluationError
from eval.stats.association import ARRANGEMENTS, associations, permutation_p_values
from eval.stats.intervals import Array
from eval.stats.permutation import holm

LAYERS = 8
TRIES = 300
PICTURES = 40


def difference(values: list[float], labels: list[bool]) -> float:
    pairs = list(zip(values, labels, strict=True))
    return fmean(v for v, has in pairs if not has) - fmean(v for v, has in pairs if has)


def exchanges(labels: list[bool], picture: list[int]) -> Iterator[list[bool]]:
    """Yield the labels under every exchange of pictures with equally many answers."""
    names = sorted(set(picture))
    answers = {name: [at for at, of in enumerate(picture) if of == name] for name in names}
    sizes = sorted({len(of) for of in answers.values()})
    groups = [[name for name in names if len(answers[name]) == size] for size in sizes]
    for orders in product(*(permutations(group) for group in groups)):
        moved = list(labels)
        for group, order in zip(groups, orders, strict=True):
            for name, source in zip(group, order, strict=True):
                for at, of in zip(answers[name], answers[source], strict=True):
                    moved[at] = labels[of]
        yield moved


@pytest.mark.parametrize("seed", range(6))
def test_few_exchanges_are_all_looked_at(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.permutation(np.repeat([3, 9, 4, 7, 1, 2, 5], [2, 2, 2, 2, 3, 3, 1]))
    values = rng.integers(0, 5, (len(picture), 3)) / 7  # with ties
    labelled = rng.random(len(picture)) < 0.4

    found = permutation_p_values(values, labelled, picture)

    for at, p_value in enumerate(found):
        column, labels = values[:, at].tolist(), labelled.tolist()
        observed = abs(difference(column, labels))
        every = [abs(difference(column, of)) for of in exchanges(labels, picture.tolist())]
        expected = fmean(one >= observed - 1e-12 for one in every)
        assert p_value == pytest.approx(expected, abs=1e-12)


def test_one_answer_a_picture_is_tested_as_scipy_does() -> None:
    rng = np.random.default_rng(3)
    values, labelled = rng.normal(size=(120, 1)), np.arange(120) % 4 == 0
    values[labelled] -= 0.35
    expected = stats.permutation_test(
        (values[~labelled, 0], values[labelled, 0]),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        vectorized=True, n_resamples=20_000, batch=2000, rng=5,
    ).pvalue  # fmt: skip

    (found,) = permutation_p_values(values, labelled, np.arange(120))

    assert 0.02 < found < 0.5, "neither hopeless nor sure"
    assert found == pytest.approx(expected, abs=0.02)
    assert [found] == permutation_p_values(values, labelled, np.arange(120)), "repeatable"
    assert [found] != permutation_p_values(values, labelled, np.arange(120), seed=1)


def test_random_exchanges_count_the_observed_one() -> None:
    values = np.arange(40.0)[:, None]

    (found,) = permutation_p_values(values, values[:, 0] < 20, np.arange(40))

    assert found == 1 / (1 + ARRANGEMENTS)


def test_pictures_are_exchanged_with_those_of_as_many_answers_only() -> None:
    """Pictures with more answers are denser and hallucinate; that alone is no association."""
    picture = np.repeat(np.arange(20), np.where(np.arange(20) < 10, 1, 3))
    many = picture >= 10
    dense = np.where(many, 0.9, 0.1)[:, None] + np.linspace(0, 0.01, 20)[picture][:, None]

    (all_alike,) = permutation_p_values(dense, many, picture)
    (one_differs,) = permutation_p_values(dense, many & (picture != 12), picture)

    assert isnan(all_alike), "no exchange changes anything"
    assert one_differs > 0.1


def test_what_does_not_vary_has_no_p_value() -> None:
    values = np.stack([np.full(30, 0.1), np.arange(30.0), np.full(30, 0.3)], axis=1)
    labelled, picture = np.arange(30) % 3 == 0, np.arange(30)

    same, varies, also_same = permutation_p_values(values, labelled, picture)

    assert isnan(same)
    assert isnan(also_same)
    assert varies <= 1
    for alike in (np.zeros(30, dtype=bool), np.ones(30, dtype=bool)):
        assert all(map(isnan, permutation_p_values(values, alike, picture)))


def test_means_and_intervals_are_of_answers_by_picture() -> None:
    rng = np.random.default_rng(7)
    asked = rng.integers(1, 5, 60)
    picture = np.repeat(np.arange(60), asked)
    values = rng.random((60, 2))[picture] + 0.01 * rng.random((len(picture), 2))
    labelled = rng.random(len(picture)) < 0.4

    found = associations(values, labelled, picture)

    for at, one in enumerate(found):
        assert one.without.value == pytest.approx(values[~labelled, at].mean())
        assert one.labelled.value == pytest.approx(values[labelled, at].mean())
        assert one.difference.value == pytest.approx(one.without.value - one.labelled.value)
        drawn = resampled_differences(values[:, at], labelled, picture)
        ends = np.quantile(drawn, [0.025, 0.975])
        assert [one.difference.low, one.difference.high] == pytest.approx(ends, abs=0.01)
    assert [one.p_value for one in found] == permutation_p_values(values, labelled, picture)


def resampled_differences(
    values: Array, labelled: NDArray[np.bool_], picture: NDArray[np.int64]
) -> list[float]:
    rng = np.random.default_rng(1)
    answers = [np.flatnonzero(picture == at) for at in range(picture.max() + 1)]
    found = []
    for _ in range(3000):
        drawn = np.concatenate([answers[at] for at in rng.integers(0, len(answers), len(answers))])
        found.append(difference(values[drawn].tolist(), labelled[drawn].tolist()))
    return found


def test_a_group_without_answers_or_of_one_picture_has_no_interval() -> None:
    values, picture = np.linspace(0, 1, 12)[:, None], np.arange(12)

    (none,) = associations(values, np.zeros(12, dtype=bool), picture)
    (one,) = associations(values, picture == 3, picture)

    assert isnan(none.labelled.value)
    assert isnan(none.difference.value)
    assert none.without.low < 0.5 < none.without.high
    assert one.labelled.value == pytest.approx(3 / 11)
    assert isnan(one.labelled.low)
    assert isnan(one.difference.low)
    with pytest.raises(EvaluationError, match="no images"):
        associations(np.zeros((0, 2)), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))


def test_the_same_number_everywhere_has_no_interval() -> None:
    (found,) = associations(np.full((30, 1), 0.25), np.arange(30) % 2 == 0, np.arange(30))

    assert (found.without.value, found.labelled.value) == (0.25, 0.25)
    assert found.difference.value == 0
    assert isnan(found.difference.low)


def share_found(captions: bool, seed: int) -> float:
    """Return in what share of tries any of 8 layers has an adjusted p below 0.05, by chance alone.

    Pictures have their own densities and their own share of wrong answers, and nothing joins them.
    """
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(TRIES):
        asked = np.ones(PICTURES, dtype=int) if captions else rng.integers(6, 11, PICTURES)
        picture = np.repeat(np.arange(PICTURES), asked)
        labelled = rng.random(len(picture)) < rng.beta(0.5, 1.5, PICTURES)[picture]
        density = rng.beta(1, 5, (PICTURES, LAYERS))[picture]
        found += min(holm(permutation_p_values(density, labelled, picture))) < 0.05
    return found / TRIES


@pytest.mark.parametrize("captions", [True, False])
def test_unrelated_labels_show_nothing_in_93_to_98_percent_of_tries(captions: bool) -> None:
    assert 0.02 <= share_found(captions, seed=5) <= 0.07


def test_a_test_of_answers_would_not_do() -> None:
    """What Welch's test over answers makes of the same null, whatever number of layers."""
    rng = np.random.default_rng(5)
    rejected = 0
    for _ in range(TRIES):
        picture = np.repeat(np.arange(PICTURES), 8)
        labelled = rng.random(len(picture)) < rng.beta(0.5, 1.5, PICTURES)[picture]
        density = rng.beta(1, 5, PICTURES)[picture]
        test = stats.ttest_ind(density[labelled], density[~labelled], equal_var=False)
        rejected += test.pvalue < 0.05

    assert rejected / TRIES > 0.15


def test_a_planted_difference_is_found_where_it_is() -> None:
    rng = np.random.default_rng(2)
    picture = np.repeat(np.arange(80), rng.integers(6, 9, 80))
    density = rng.beta(2, 5, (80, LAYERS))
    wrong = 0.6 - density[:, 1]
    labelled = rng.random(len(picture)) < wrong[picture].clip(0, 1)

    found = holm(permutation_p_values(density[picture], labelled, picture))

    assert found[1] < 0.01
    assert min([*found[:1], *found[2:]]) > 0.05
