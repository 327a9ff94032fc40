"""Counting sinks and choosing the head from sums that are written down here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eah.modeling_llama_eah import (
    ColumnSums,
    HeadChoice,
    SinkRule,
    Visibility,
    choose_head,
    column_sums,
)


def sums_of(means: list[list[list[float]]]) -> ColumnSums:
    """Return sums over four rows per column, which are exact in float32."""
    attention = 4 * torch.tensor(means)  # [b][h][y]
    batch, _, keys = attention.shape
    return ColumnSums(attention, torch.ones(batch, keys), torch.full((batch, keys), 4.0))


def choose(means: list[list[float]], *, image: list[bool] | None = None, **rule: Any) -> HeadChoice:
    columns = [True] * len(means[0]) if image is None else image
    rule.setdefault("threshold", 0.25)
    return choose_head(sums_of([means]), torch.tensor([columns]), SinkRule(**rule))


def test_a_sink_is_above_the_threshold_not_at_it() -> None:
    choice = choose([[0.25, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 0.28125]])

    assert choice.counts.tolist() == [[0, 1]]
    assert choice.head.tolist() == [1]


def test_a_column_at_the_threshold_of_uniform_attention_is_no_sink() -> None:
    # The sums over 4 rows of 1 / keys seen are 1: uniform attention is 0.25 here.
    choice = choose([[0.3125, 0.0], [0.375, 0.0]], threshold=1.25, threshold_unit="uniform")

    assert choice.counts.tolist() == [[0, 1]]


def test_uniform_attention_exceeds_a_threshold_below_it_in_every_head() -> None:
    query = torch.zeros(1, 2, 4, 8)
    sums = column_sums(query, query, Visibility(), scaling=1.0)
    image = torch.tensor([[False, False, True, False]])

    # The only row that sees column 2 from further on spreads its attention over 4 keys.
    at = choose_head(sums, image, SinkRule(threshold=0.25))
    below = choose_head(sums, image, SinkRule(threshold=0.2499))

    assert (at.counts.tolist(), at.head.tolist()) == ([[0, 0]], [-1])
    assert (below.counts.tolist(), below.head.tolist()) == ([[1, 1]], [0])


def test_columns_that_are_not_image_tokens_do_not_count() -> None:
    choice = choose([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0]], image=[False, True, True])

    assert choice.counts.tolist() == [[0, 1]]
    assert choice.image_tokens.tolist() == [2]


def test_the_lowest_of_the_densest_heads_wins() -> None:
    choice = choose([[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.9, 0.9]])

    assert choice.counts.tolist() == [[1, 2, 2]]
    assert choice.head.tolist() == [1]


def test_image_attention_decides_between_the_densest_heads_only() -> None:
    # Head 0 gets most attention of all, but has fewer sinks.
    means = [[9.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.25]]

    choice = choose(means, tie_break="image-attention")

    assert choice.counts.tolist() == [[1, 2, 2]]
    assert choice.head.tolist() == [2]


def test_attention_off_the_image_breaks_no_tie() -> None:
    means = [[0.5, 0.0], [0.375, 0.9]]

    choice = choose(means, image=[True, False], tie_break="image-attention")

    assert choice.head.tolist() == [0]


@pytest.mark.parametrize(("min_density", "head"), [(0.0, 1), (0.5, 1), (0.501, -1), (1.0, -1)])
def test_min_density_is_the_smallest_share_that_is_enough(min_density: float, head: int) -> None:
    means = [[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]

    assert choose(means, min_density=min_density).head.tolist() == [head]


@pytest.mark.parametrize("min_density", [0.0, 0.5])
@pytest.mark.parametrize("tie_break", ["lowest-index", "image-attention"])
def test_no_sink_means_no_head(min_density: float, tie_break: str) -> None:
    choice = choose([[0.2, 0.0], [0.1, 0.1]], min_density=min_density, tie_break=tie_break)

    assert choice.head.tolist() == [-1]


def test_a_winning_head_zero_is_ignored_only_where_the_rule_says_so() -> None:
    means = [[0.5, 0.5], [0.5, 0.0]]

    assert choose(means).head.tolist() == [0]
    assert choose(means, head_zero="ignored").head.tolist() == [-1]
    assert choose(means[::-1], head_zero="ignored").head.tolist() == [1]


def test_first_row_only_leaves_the_rest_of_the_batch() -> None:
    sums = sums_of([[[0.0, 0.0], [0.5, 0.0]]] * 3)
    image = torch.ones(3, 2, dtype=torch.bool)

    everywhere = choose_head(sums, image, SinkRule(threshold=0.25))
    first = choose_head(sums, image, SinkRule(threshold=0.25, batch_rows="first"))

    assert everywhere.head.tolist() == [1, 1, 1]
    assert first.head.tolist() == [1, -1, -1]
    assert torch.equal(first.counts, everywhere.counts)


def test_a_forced_head_wins_whatever_the_counts_where_there_is_an_image() -> None:
    sums = sums_of([[[0.5, 0.5], [0.0, 0.0]]] * 2)
    image = torch.tensor([[True, True], [False, False]])

    choice = choose_head(sums, image, SinkRule(threshold=0.25, head=1))

    assert choice.head.tolist() == [1, -1]
    assert choice.counts.tolist() == [[2, 0], [0, 0]]


def test_the_released_divisor_counts_down_from_the_end_of_the_span() -> None:
    # Span [2, 5): the sums 4 * 0.25 = 1 of columns 2, 3, 4 are divided by 5, 4, 3.
    means, image = [[0.25] * 6], [False, False, True, True, True, False]
    counts = [
        choose(means, image=image, threshold=threshold, column_divisor="released").counts.item()
        for threshold in (0.19, 0.21, 0.26, 0.34)
    ]

    assert counts == [3, 2, 1, 0]


def test_saturated_tells_that_every_image_token_is_a_sink_in_every_head() -> None:
    full, but_one = [[0.5, 0.5], [0.9, 0.9]], [[0.5, 0.5], [0.9, 0.0]]

    assert choose(full).saturated.tolist() == [True]
    assert choose(but_one).saturated.tolist() == [False]
    assert choose(full, image=[False, False]).saturated.tolist() == [False]
    assert choose(but_one, image=[True, False]).saturated.tolist() == [True]


@pytest.mark.parametrize(("count", "columns"), [(7, 13), (3, 21), (15, 19)])
def test_a_density_that_equals_the_bound_is_not_below_it(count: int, columns: int) -> None:
    means = torch.zeros(1, 1, columns)
    means[..., :count] = 0.5
    sums = ColumnSums(means, torch.ones(1, columns), torch.ones(1, columns))
    image = torch.ones(1, columns, dtype=torch.bool)

    for bound, head in ((count / columns, 0), (count / columns + 1e-9, -1)):
        rule = SinkRule(threshold=0.25, min_density=bound)
        assert choose_head(sums, image, rule).head.tolist() == [head]
