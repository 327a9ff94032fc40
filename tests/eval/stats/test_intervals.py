"""Intervals and tests against hand counts, closed forms, another bootstrap, and known truths."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from math import comb, exp, isnan, nan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from eval.errors import EvaluationError
from eval.stats import intervals
from eval.stats.intervals import (
    Array,
    Interval,
    McNemar,
    bootstrap_intervals,
    few_pictures_note,
    mcnemar,
    paired_intervals,
    ratio,
)


def share(sums: Array) -> Array:
    """Return the share that is right; the columns are right and all."""
    return ratio(sums[0], sums[1])[None]


def chair(sums: Array) -> Array:
    """Return CHAIRs, CHAIRi and the length, as an evaluation of captions has them."""
    captions, hallucinated_captions, mentions, hallucinated = sums
    return np.stack(
        [
            ratio(hallucinated_captions, captions),
            ratio(hallucinated, mentions),
            ratio(mentions, captions),
        ]
    )


def width(interval: Interval) -> float:
    return interval.high - interval.low


def captions(rng: np.random.Generator, images: int) -> tuple[Array, Array]:
    """Return the counts of two arms on the same images; see TRUTH.

    Half of the images are hard: longer captions and more hallucinated objects, so that the objects
    of a caption are not independent. The second arm drops a fifth of the hallucinated objects and
    adds others.
    """
    hard = rng.random(images) < 0.5
    mentions = rng.poisson(np.where(hard, 6.0, 3.0))
    hallucinated = rng.binomial(mentions, np.where(hard, 0.25, 0.05))
    kept = rng.binomial(hallucinated, 0.8)
    longer = mentions + rng.poisson(0.5, images)
    ones = np.ones(images)
    first = np.stack([ones, hallucinated > 0, mentions, hallucinated], axis=1)
    return first, np.stack([ones, kept > 0, longer, kept], axis=1)


# Hallucinated objects are Poisson with means 1.5 and 0.15, then with 1.2 and 0.12.
TRUTH = np.array([1 - (exp(-1.5) + exp(-0.15)) / 2, 0.825 / 4.5, 4.5])
SECOND = np.array([1 - (exp(-1.2) + exp(-0.12)) / 2, 0.66 / 5.0, 5.0])


def test_intervals_agree_with_another_bootstrap() -> None:
    counts, _ = captions(np.random.default_rng(1), 150)
    rng = np.random.default_rng(99)
    drawn = []
    for _ in range(10_000):
        _, with_some, mentions, hallucinated = counts[rng.integers(0, 150, 150)].T
        drawn.append([with_some.mean(), hallucinated.sum() / mentions.sum(), mentions.mean()])
    expected = np.percentile(drawn, [2.5, 97.5], axis=0).T

    found = bootstrap_intervals(counts, chair)

    assert [i.value for i in found] == [
        counts[:, 1].mean(),
        counts[:, 3].sum() / counts[:, 2].sum(),
        counts[:, 2].mean(),
    ]
    for interval, (low, high) in zip(found, expected, strict=True):
        # What 10,000 resamples leave open is some hundredths of the width.
        assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.05 * (high - low))


def test_a_share_of_independent_answers_has_the_binomial_width() -> None:
    counts = np.array([(i < 600, 1) for i in range(2000)])

    (interval,) = bootstrap_intervals(counts, share)

    half = 1.96 * sqrt(0.3 * 0.7 / 2000)
    assert interval.value == 0.3
    assert interval.low == pytest.approx(0.3 - half, abs=0.05 * half)
    assert interval.high == pytest.approx(0.3 + half, abs=0.05 * half)


def test_what_an_image_brings_is_drawn_together() -> None:
    """Six answers that are all right or all wrong tell as much as one."""
    right = np.arange(200) % 4 > 0
    together = np.stack([6 * right, np.full(200, 6)], axis=1)
    apart = np.repeat(np.stack([right, np.ones(200)], axis=1), 6, axis=0)

    (by_image,), (by_answer,) = (bootstrap_intervals(c, share) for c in (together, apart))

    assert by_image.value == by_answer.value == 0.75
    assert width(by_image) / width(by_answer) == pytest.approx(sqrt(6), rel=0.05)


def test_arms_that_differ_alike_on_every_image_differ_for_certain() -> None:
    right = np.random.default_rng(2).integers(0, 4, 100)
    asked = np.full(100, 4)
    first, second = np.stack([right, asked], axis=1), np.stack([right + 1, asked], axis=1)

    (gain,) = paired_intervals(first, second, share, highest=[1.0])
    (loss,) = paired_intervals(second, first, share, highest=[1.0])
    (unbounded,) = paired_intervals(first, second, share)

    # Sums in other orders differ in their last digits; that is no variation.
    assert gain.wilson
    known = stats.binomtest(25, 100).proportion_ci(method="wilson")
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.25, known.low, known.high))
    assert (loss.value, loss.low, loss.high) == (-gain.value, -gain.high, -gain.low)
    assert isnan(unbounded.low)
    assert width(bootstrap_intervals(first, share)[0]) > 0.05


def test_independent_arms_have_the_width_of_a_difference_of_shares() -> None:
    rng = np.random.default_rng(3)
    first, second = (np.stack([rng.random(2000) < p, np.ones(2000)], axis=1) for p in (0.5, 0.6))

    (found,) = paired_intervals(first, second, share)

    assert found.value == pytest.approx(second[:, 0].mean() - first[:, 0].mean())
    assert width(found) == pytest.approx(2 * 1.96 * sqrt((0.25 + 0.24) / 2000), rel=0.05)


def coverage(compute: Callable[[Array, Array], list[Interval]], truth: Array) -> Array:
    """Return how often the interval of each metric has the truth in it, over 300 data sets."""
    rng = np.random.default_rng(2014)
    hits = [
        [
            i.low <= true <= i.high
            for i, true in zip(compute(*captions(rng, 200)), truth, strict=True)
        ]
        for _ in range(300)
    ]
    return np.mean(hits, axis=0)


def test_the_truth_is_in_95_of_100_intervals() -> None:
    covered = coverage(lambda one, _: bootstrap_intervals(one, chair, n_resamples=1000), TRUTH)

    assert ((covered >= 0.92) & (covered <= 0.98)).all(), covered


def test_the_true_difference_is_in_95_of_100_intervals() -> None:
    covered = coverage(
        lambda one, other: paired_intervals(one, other, chair, n_resamples=1000), SECOND - TRUTH
    )

    assert ((covered >= 0.92) & (covered <= 0.98)).all(), covered


def test_a_seed_gives_one_result_however_many_are_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts, _ = captions(np.random.default_rng(4), 50)
    found = bootstrap_intervals(counts, chair, n_resamples=1000)
    other_seed = bootstrap_intervals(counts, chair, n_resamples=1000, seed=1)
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 130)

    assert bootstrap_intervals(counts, chair, n_resamples=1000) == found
    assert other_seed != found
    assert [i.value for i in other_seed] == [i.value for i in found]


@pytest.mark.parametrize("images", [37, 500, 1001])
def test_the_resamples_are_scipys(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: what is drawn at a time, there and here, changes nothing."""
    counts = np.random.default_rng(5).integers(0, 9, (images, 4)).astype(float)
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 7 * images)

    found = intervals._resample(counts, chair, seed=3, n_resamples=250)

    known = stats.bootstrap(
        (np.arange(images),),
        lambda drawn, axis: chair(np.moveaxis(counts[drawn].sum(axis=-2), -1, 0)),
        n_resamples=250,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(3),
    )
    assert found.shape == (3, 250)
    assert np.array_equal(found, known.bootstrap_distribution)


def test_memory_is_bounded_for_many_images() -> None:
    drawn: list[tuple[int, ...]] = []

    def total(sums: Array) -> Array:
        drawn.append(sums.shape)
        return sums

    tracemalloc.start()
    bootstrap_intervals(np.ones((50_000, 1)), total, n_resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # All, the resamples, and each image for itself.
    assert drawn == [(1,), (1, 100), (1, 50_000)]
    assert peak < 8 * 50_000 * 100 / 5  # bytes of all images that are drawn


def test_without_variance_and_bounds_there_is_no_interval() -> None:
    (found,) = bootstrap_intervals([[1, 3]] * 7, share)

    assert found.value == 1 / 3
    assert isnan(found.low)
    assert isnan(found.high)
    assert found.percent() == "33.3"


def test_a_number_of_one_image_among_others_has_no_interval() -> None:
    found = bootstrap_intervals([[1, 1]] * 7, lambda s: np.stack([*share(s)] * 2),
                                highest=[1.0, 1.0], pictures=[1, 7])  # fmt: skip

    assert isnan(found[0].low)
    assert found[1].wilson


def test_a_number_that_is_not_defined_has_no_value() -> None:
    (never,) = bootstrap_intervals([[0, 0]] * 5, share)

    assert isnan(never.value)
    assert isnan(never.low)
    assert isnan(never.high)
    assert never.as_dict() == {"value": None, "low": None, "high": None}
    assert never.percent() == never.points() == "n/a"


def test_resamples_in_which_a_number_is_not_defined_do_not_count() -> None:
    table = np.array([[1, 2], [1, 1], [0, 0], [0, 0], [0, 0]])
    rng = np.random.default_rng(8)
    shares = []
    while len(shares) < 20_000:
        right, asked = table[rng.integers(0, 5, 5)].sum(axis=0)
        if asked:
            shares.append(right / asked)

    (seldom,) = bootstrap_intervals(table, share)

    assert seldom.value == 2 / 3
    assert [seldom.low, seldom.high] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.02)


@pytest.mark.parametrize(
    ("right", "images", "highest"), [(30, 30, 1.0), (0, 30, 1.0), (12, 12, 200.0), (0, 7, 200.0)]
)
def test_where_all_images_give_the_same_the_interval_is_wilsons(
    right: int, images: int, highest: float
) -> None:
    table = [[right / images, 1]] * images

    (found,) = bootstrap_intervals(table, lambda s: highest * share(s), highest=[highest])

    known = stats.binomtest(right, images).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((highest * known.low, highest * known.high))
    assert found.value == highest * right / images
    assert found.as_dict()["wilson"] is True
    assert not bootstrap_intervals(table, share)[0].wilson, "a number without bounds has none"


def test_wilsons_interval_of_no_difference_reaches_both_ways() -> None:
    same = [[1, 1]] * 40
    (none,) = paired_intervals(same, same, share, highest=[1.0])
    (all_lost,) = paired_intervals(same, [[0, 1]] * 40, share, highest=[1.0])
    (few,) = paired_intervals(same, same, share, highest=[1.0], pictures=[10])

    high = stats.binomtest(0, 40).proportion_ci(method="wilson").high
    assert (none.value, none.low, none.high) == pytest.approx((0, -high, high))
    assert (all_lost.value, all_lost.low, all_lost.high) == pytest.approx((-1, -1, high - 1))
    known = stats.binomtest(0, 10).proportion_ci(method="wilson")
    assert few.high == pytest.approx(known.high)


def test_an_interval_that_varies_is_not_wilsons() -> None:
    table = [[1, 1]] * 30 + [[0, 1]]

    assert bootstrap_intervals(table, share, highest=[1.0]) == bootstrap_intervals(table, share)


def test_the_note_of_one_picture_is_that_it_has_no_interval() -> None:
    assert few_pictures_note(1) == ["note: 1 picture, so there are no intervals"]


@pytest.mark.parametrize(("pictures", "notes"), [(49, 1), (50, 0), (1, 1)])
def test_fewer_than_fifty_pictures_have_a_note(pictures: int, notes: int) -> None:
    found = few_pictures_note(pictures)

    assert len(found) == notes
    assert all(f"{pictures} picture" in note for note in found)


def test_one_image_has_a_value_and_no_interval() -> None:
    (found,) = bootstrap_intervals([[1, 2]], share)

    assert found.value == 0.5
    assert isnan(found.low)
    assert isnan(found.high)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == {
        "value": 0.5,
        "low": None,
        "high": None,
    }


def test_no_image_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no images to compute an interval from"):
        bootstrap_intervals(np.zeros((0, 2)), share)


@pytest.mark.parametrize("other", [np.ones((4, 2)), np.ones((5, 3))])
def test_arms_on_different_images_are_an_error(other: Array) -> None:
    with pytest.raises(EvaluationError, match=r"shapes \(5, 2\) and .* same images"):
        paired_intervals(np.ones((5, 2)), other, share)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [
        (1, 9, 2 * (comb(10, 0) + comb(10, 1)) / 2**10),
        (9, 1, 2 * (comb(10, 0) + comb(10, 1)) / 2**10),
        (0, 6, 2 / 2**6),
        (700, 801, 2 * sum(comb(1501, k) for k in range(701)) / 2**1501),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_equals_the_binomial_sum(lost: int, gained: int, p_value: float) -> None:
    pairs = [(True, False)] * lost + [(False, True)] * gained
    pairs += [(True, True)] * 20 + [(False, False)] * 3
    first, second = zip(*pairs, strict=True)

    found = mcnemar(first, second)

    assert (found.gained, found.lost) == (gained, lost)
    assert found.p_value == pytest.approx(p_value, rel=1e-15)
    if gained + lost:
        known = stats.binomtest(gained, gained + lost).pvalue
        assert found.p_value == pytest.approx(known, rel=1e-12)
    assert found.as_dict() == {"gained": gained, "lost": lost, "p_value": found.p_value}


def test_mcnemar_of_nothing_is_one() -> None:
    assert mcnemar([], []) == McNemar(0, 0, 1.0)


def test_mcnemar_needs_the_same_questions() -> None:
    with pytest.raises(EvaluationError, match=r"shapes \(2,\) and \(1,\)"):
        mcnemar([True, False], [True])


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [(3, 4, 0.75), (0, 8, 0.0), (0, 0, nan), (2, 0, nan), ([1, 2], [0, 8], [nan, 0.25])],
)
def test_ratio(numerator: Any, denominator: Any, expected: Any) -> None:
    found = ratio(np.array(numerator), np.array(denominator)).tolist()
    assert found == pytest.approx(expected, nan_ok=True)
