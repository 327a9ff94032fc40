"""The map of prompts made by hand: two layers, of which the second has one head more."""

from __future__ import annotations

import numpy as np
import pytest

from eval.analysis.maps import HeadMap, head_map, long_rows
from eval.analysis.observed import Observed, ObservedLayer

GAMMAS = (0.15, 0.2)


def layer(index: int, *counts: tuple[int, ...], densest: tuple[int | None, ...]) -> ObservedLayer:
    """Return a layer with counts by threshold; head h gives the image 0.1 h."""
    attention = tuple(0.1 * head for head in range(len(counts[0])))
    return ObservedLayer(index, counts, attention, densest)


@pytest.fixture(scope="module")
def found() -> HeadMap:
    prompts = [
        # Of 20 tokens, 3 are exactly 0.15 and 4 exactly 0.2.
        Observed("a.jpg", "one?", 20, (
            layer(0, (3, 4), (0, 0), densest=(1, None)),
            layer(3, (20, 20, 20), (20, 2, 2), densest=(0, 0)),
        )),
        Observed("a.jpg", "two?", 40, (
            layer(0, (5, 8), (0, 1), densest=(1, 1)),
            layer(3, (40, 40, 39), (4, 4, 4), densest=(0, 0)),
        )),
    ]  # fmt: skip
    return head_map(prompts, model="m", thresholds=(0.1, 0.2), unit="attention", gammas=GAMMAS)


def test_means_are_over_prompts_and_pictures_count_once(found: HeadMap) -> None:
    assert (found.pictures, found.prompts, found.image_tokens) == (1, 2, 30)
    assert found.layers == (0, 3)
    assert found.density[0, 0, :2] == pytest.approx([(3 / 20 + 5 / 40) / 2, 0.2])
    assert found.density[1, 1] == pytest.approx([(1 + 0.1) / 2, 0.1, 0.1])
    assert found.attention[1] == pytest.approx([0, 0.1, 0.2])


def test_a_layer_has_nan_where_another_has_a_head_more(found: HeadMap) -> None:
    for values in (found.density[:, 0, 2], found.densest[:, 0, 2], found.attention[0, 2]):
        assert np.isnan(values).all()
    heads = [(row[3], row[4]) for row in long_rows([found])[1] if row[1] == 0.1]
    assert heads == [(0, 0), (0, 1), (3, 0), (3, 1), (3, 2)]


def test_no_head_is_the_densest_where_none_has_a_sink(found: HeadMap) -> None:
    assert found.densest[:, 0, :2].tolist() == [[0, 1], [0, 0.5]]
    assert found.densest[:, 1].tolist() == [[1, 0, 0]] * 2


def test_a_head_of_exactly_gamma_is_dense_in_each_prompt_by_itself(found: HeadMap) -> None:
    # Of the first layer's heads, both in the first prompt and one in the second have 0.15.
    assert found.dense_share[0, :, 0].tolist() == [3 / 4, 2 / 4]
    assert found.dense_share[1, :, 1].tolist() == pytest.approx([1 / 6, 1 / 6])


def test_a_layer_is_saturated_where_every_token_is_a_sink_in_every_head(found: HeadMap) -> None:
    assert found.saturated.tolist() == [[0, 0.5], [0, 0]]
