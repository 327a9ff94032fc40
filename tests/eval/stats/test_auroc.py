"""AUROC by pictures, against counting pairs one by one, with every picture repeated as drawn."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from eval.stats.auroc import auroc, pair_wins
from eval.stats.intervals import Array

PICTURES = 7


def counted(scores: list[float], labels: list[bool]) -> float:
    """Return AUROC by its definition."""
    won, pairs = 0.0, 0
    for high, positive in zip(scores, labels, strict=True):
        for low, other in zip(scores, labels, strict=True):
            if positive and not other:
                pairs += 1
                won += 1.0 if high > low else 0.5 if high == low else 0.0
    return won / pairs if pairs else nan


@pytest.fixture
def data() -> tuple[Array, np.ndarray, np.ndarray]:
    """Return scores with many ties, labels, and pictures, one of which no answer is about."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, PICTURES - 1, 60)
    return rng.integers(0, 6, 60) / 5, rng.random(60) < 0.4, picture


def test_it_is_the_share_of_pairs_that_the_positive_wins(
    data: tuple[Array, np.ndarray, np.ndarray],
) -> None:
    scores, labels, picture = data
    pairs = pair_wins(scores, labels, picture, PICTURES)

    found = auroc(pairs, np.ones((1, PICTURES)))

    assert found == pytest.approx([counted(scores.tolist(), labels.tolist())], abs=1e-12)
    assert pairs.positives.sum() == labels.sum()
    assert pairs.negatives.sum() == (~labels).sum()


def test_a_resample_is_its_pictures_repeated(data: tuple[Array, np.ndarray, np.ndarray]) -> None:
    scores, labels, picture = data
    weights = np.random.default_rng(4).multinomial(PICTURES, [1 / PICTURES] * PICTURES, 30)

    found = auroc(pair_wins(scores, labels, picture, PICTURES), weights)

    for row, value in zip(weights.astype(int), found, strict=True):
        times = row[picture]
        expected = counted(np.repeat(scores, times).tolist(), np.repeat(labels, times).tolist())
        assert value == pytest.approx(expected, abs=1e-12)


def test_pairs_are_compared_in_blocks(
    data: tuple[Array, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pair_wins(*data, PICTURES)
    monkeypatch.setattr("eval.stats.auroc._COMPARED_AT_ONCE", 100)

    assert np.array_equal(pair_wins(*data, PICTURES).wins, whole.wins)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_has_none(label: bool) -> None:
    pairs = pair_wins(np.array([0.1, 0.9]), np.full(2, label), np.array([0, 1]), 2)

    assert np.isnan(auroc(pairs, np.ones((3, 2)))).all()
