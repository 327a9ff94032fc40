"""Counting sinks and choosing the head from sums that are written down here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eah import EAHConfig
from eah.method import RULES, Choice, Columns, choose, column_sums, paper, released_code, scale_free
from eah.visibility import Visibility
from tests.eah import oracle


def sums_of(means: list[list[list[float]]]) -> Columns:
    """Return sums over four rows per column, which are exact in float32."""
    attention = 4 * torch.tensor(means)  # [b][h][y]
    batch, _, keys = attention.shape
    return Columns(attention, torch.ones(batch, keys), torch.full((batch, keys), 4.0))


def choice(means: list[list[float]], *, image: list[bool] | None = None, **settings: Any) -> Choice:
    """Return the choice in a batch of one; its image is every column if none is named."""
    columns = [True] * len(means[0]) if image is None else image
    settings.setdefault("threshold", 0.25)
    settings.setdefault("threshold_unit", "attention")
    return choose(sums_of([means]), torch.tensor([columns]), EAHConfig(**settings))


def counts_and_head(found: Choice) -> tuple[list[int], int]:
    return found.counts[0].tolist(), found.head[0].item()


def test_a_sink_is_above_the_threshold_not_at_it() -> None:
    found = choice([[0.25, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 0.28125]])

    assert counts_and_head(found) == ([0, 1], 1)


def test_a_column_at_the_threshold_of_uniform_attention_is_no_sink() -> None:
    # The sums over 4 rows of 1 / keys seen are 1: uniform attention is 0.25 here.
    found = choice([[0.3125, 0.0], [0.375, 0.0]], threshold=1.25, threshold_unit="uniform")

    assert counts_and_head(found) == ([0, 1], 1)


def test_uniform_attention_exceeds_a_threshold_below_it_in_every_head() -> None:
    query = torch.zeros(1, 2, 4, 8)
    sums = column_sums(query, query, Visibility(), scaling=1.0)
    image = torch.tensor([[False, False, True, False]])

    # The only row that sees column 2 from further on spreads its attention over 4 keys.
    at = choose(sums, image, EAHConfig(threshold=0.25))
    below = choose(sums, image, EAHConfig(threshold=0.2499))

    assert counts_and_head(at) == ([0, 0], -1)
    assert counts_and_head(below) == ([1, 1], 0)


def test_columns_that_no_row_sees_have_a_mean_of_zero() -> None:
    columns = Columns(torch.zeros(1, 2, 3), torch.zeros(1, 3), torch.zeros(1, 3))

    assert not columns.means.any()
    assert not columns.uniform_means.any()
    assert columns.means.shape == (1, 2, 3)


@pytest.mark.parametrize("rule", ["paper", "scale_free"])
def test_columns_that_are_not_image_tokens_do_not_count(rule: str) -> None:
    found = choice([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0]], image=[False, True, True], rule=rule)

    assert counts_and_head(found) == ([0, 1], 1)


def test_the_lowest_of_the_densest_heads_wins() -> None:
    found = choice([[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.9, 0.9]])

    assert counts_and_head(found) == ([1, 2, 2], 1)


def test_scale_free_breaks_ties_by_image_attention_between_the_densest_heads_only() -> None:
    # Head 0 gets most attention of all, but has fewer sinks.
    means = [[9.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.25]]

    assert counts_and_head(choice(means, rule="paper")) == ([1, 2, 2], 1)
    assert counts_and_head(choice(means, rule="scale_free")) == ([1, 2, 2], 2)


def test_scale_free_gives_a_tie_of_image_attention_to_the_lowest_head() -> None:
    means = [[0.5, 0.0], [0.5, 0.5], [0.5, 0.5]]

    assert counts_and_head(choice(means, rule="scale_free")) == ([1, 2, 2], 1)


def test_attention_off_the_image_breaks_no_tie() -> None:
    means = [[0.5, 0.0], [0.375, 0.9]]

    assert choice(means, image=[True, False], rule="scale_free").head.tolist() == [0]


def test_scale_free_chooses_as_the_loops_do() -> None:
    means = (torch.randint(0, 5, (50, 4, 6)) / 8).tolist()
    image = torch.rand(50, 6) < 0.7
    config = EAHConfig(rule="scale_free", threshold=0.25, threshold_unit="attention")

    found = choose(sums_of(means), image, config)

    ties = 0
    for b in range(50):
        columns = [[m for m, on in zip(row, image[b], strict=True) if on] for row in means[b]]
        counts = oracle.sink_counts(columns, 0.25)
        received = [sum(row) for row in columns]
        assert found.counts[b].tolist() == counts
        assert found.head[b].item() == oracle.densest(counts, len(columns[0]), received=received)
        ties += oracle.densest(counts, len(columns[0])) != found.head[b].item()
    assert ties > 5


@pytest.mark.parametrize(("min_density", "head"), [(0.0, 1), (0.5, 1), (0.501, -1), (1.0, -1)])
def test_min_density_is_the_smallest_share_that_is_enough(min_density: float, head: int) -> None:
    means = [[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]

    assert choice(means, min_density=min_density).head.tolist() == [head]


@pytest.mark.parametrize(("count", "columns"), [(7, 13), (3, 21), (15, 19), (1, 3), (2, 3), (1, 1)])
def test_a_density_that_equals_the_bound_is_not_below_it(count: int, columns: int) -> None:
    means = [[0.5] * count + [0.0] * (columns - count)]

    assert choice(means, min_density=count / columns).head.tolist() == [0]
    if count < columns:
        assert choice(means, min_density=count / columns + 1e-9).head.tolist() == [-1]


def test_min_density_is_a_share_of_each_prompts_own_image_tokens() -> None:
    sums = sums_of([[[0.5, 0.0, 0.0, 0.0]]] * 2)
    image = torch.tensor([[True, True, False, False], [True, True, True, False]])

    found = choose(sums, image, EAHConfig(threshold=0.25, min_density=0.5))

    assert found.head.tolist() == [0, -1]
    assert found.counts.tolist() == [[1], [1]]


@pytest.mark.parametrize("min_density", [0.0, 0.5])
@pytest.mark.parametrize("rule", ["paper", "scale_free"])
def test_no_sink_means_no_head(min_density: float, rule: str) -> None:
    found = choice([[0.2, 0.0], [0.1, 0.1]], min_density=min_density, rule=rule)

    assert found.head.tolist() == [-1]


@pytest.mark.parametrize("rule", ["paper", "scale_free"])
def test_head_zero_may_win(rule: str) -> None:
    assert choice([[0.5, 0.5], [0.5, 0.0]], rule=rule).head.tolist() == [0]


def test_in_the_released_code_a_winning_head_zero_changes_nothing() -> None:
    # Of a span from column 0 of two tokens the divisors are 2 and 1: sums of 2 give 1 and 2.
    means, span = [[0.5, 0.5], [0.5, 0.0]], (0, 2)
    released = {"rule": "released_code", "image_span": span, "threshold": 0.25}

    assert counts_and_head(choice(means, **released)) == ([2, 1], -1)
    assert counts_and_head(choice(means[::-1], **released)) == ([1, 2], 1)
    # Head 0 wins a tie, and is then left out all the same.
    assert counts_and_head(choice([means[0], means[0]], **released)) == ([2, 2], -1)


def test_in_the_released_code_only_the_first_row_of_a_batch_is_changed() -> None:
    sums = sums_of([[[0.0, 0.0], [0.5, 0.0]]] * 3)
    image = torch.ones(3, 2, dtype=torch.bool)
    first = EAHConfig(rule="released_code", image_span=(0, 2), threshold=0.25)

    everywhere = choose(sums, image, EAHConfig(threshold=0.25))
    released = choose(sums, image, first)

    assert everywhere.head.tolist() == [1, 1, 1]
    assert released.head.tolist() == [1, -1, -1]
    assert torch.equal(released.counts, everywhere.counts)


def test_the_released_divisor_counts_down_from_the_end_of_the_span() -> None:
    # Span [2, 5): the sums 4 * 0.25 = 1 of columns 2, 3, 4 are divided by 5, 4, 3.
    means, image = [[0.25] * 6], [False, False, True, True, True, False]
    released = {"rule": "released_code", "image_span": (2, 5)}
    counts = [
        choice(means, image=image, threshold=threshold, **released).counts.item()
        for threshold in (0.19, 0.21, 0.26, 0.34)
    ]

    assert counts == [3, 2, 1, 0]


def test_a_forced_head_wins_whatever_the_counts_where_there_is_an_image() -> None:
    sums = sums_of([[[0.5, 0.5], [0.0, 0.0]]] * 2)
    image = torch.tensor([[True, True], [False, False]])

    # Not even a density that no head has keeps it back.
    found = choose(sums, image, EAHConfig(threshold=0.25, head=1, min_density=1.0))

    assert found.head.tolist() == [1, -1]
    assert found.counts.tolist() == [[2, 0], [0, 0]]


def test_all_heads_are_receivers_by_default() -> None:
    assert choice([[0.5, 0.0], [0.0, 0.0]]).receivers is None


def test_receivers_are_the_heads_with_fewest_sinks_lowest_index_first() -> None:
    means = [[0.5, 0.5, 0.5], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0]]

    found = [choice(means, receivers=number).receivers[0].tolist() for number in (1, 2, 3, 4)]

    assert found == [
        [False, False, True, False],
        [False, True, True, False],
        [False, True, True, True],
        [True, True, True, True],
    ]


@pytest.mark.parametrize("receivers", [1, 2, 5, 7, 8])
def test_receivers_are_those_of_the_loops(receivers: int) -> None:
    # Many heads of few different counts: an unstable sort would mix up equal ones.
    means = (torch.randint(0, 2, (20, 8, 3)) / 2).tolist()
    config = EAHConfig(threshold=0.25, receivers=receivers)

    found = choose(sums_of(means), torch.ones(20, 3, dtype=torch.bool), config)

    assert found.receivers is not None
    for b in range(20):
        expected = oracle.fewest_sinks(oracle.sink_counts(means[b], 0.25), receivers)
        assert found.receivers[b].nonzero().flatten().tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("rule", "threshold"), [(paper, 0.002), (scale_free, 1.25), (released_code, 0.0008)]
)
def test_a_rule_alone_has_the_threshold_of_its_name(rule: Any, threshold: float) -> None:
    # One column of one row, whose uniform attention is 1; the released divisor is 1 too.
    attention = torch.tensor([[[0.9999 * threshold], [1.0001 * threshold]]])
    columns = Columns(attention, torch.ones(1, 1), torch.ones(1, 1))

    found = rule(columns, torch.ones(1, 1, dtype=torch.bool))

    assert counts_and_head(found) == ([0, 1], 1)


def test_the_rules_have_these_names() -> None:
    assert {"paper": paper, "scale_free": scale_free, "released_code": released_code} == RULES


def test_a_rule_of_ones_own_gets_columns_and_image_and_its_choice_is_taken() -> None:
    given = []

    def most_attention(columns: Columns, image: torch.Tensor) -> Choice:
        given.append((columns, image))
        received = (columns.means * image[:, None]).sum(-1)
        return Choice(received.argmax(-1), torch.full_like(received, 7, dtype=torch.int64))

    sums = sums_of([[[0.1, 0.9], [0.2, 0.0]], [[0.1, 0.0], [0.0, 0.9]]])
    image = torch.tensor([[True, False], [True, True]])

    found = choose(sums, image, EAHConfig(rule=most_attention))

    ((columns, columns_of_image),) = given
    assert columns is sums
    assert columns_of_image is image
    assert found.head.tolist() == [1, 1]
    assert found.counts.tolist() == [[7, 7], [7, 7]]
    assert found.receivers is None


def test_the_receivers_of_a_rule_of_ones_own_are_taken_unless_the_settings_name_some() -> None:
    mine = torch.tensor([[True, False, True]])

    def rule(columns: Columns, image: torch.Tensor) -> Choice:
        return Choice(torch.tensor([0]), torch.tensor([[3, 2, 1]]), mine)

    sums, image = sums_of([[[0.0]] * 3]), torch.ones(1, 1, dtype=torch.bool)

    assert torch.equal(choose(sums, image, EAHConfig(rule=rule)).receivers, mine)
    named = choose(sums, image, EAHConfig(rule=rule, receivers=1)).receivers
    assert named.tolist() == [[False, False, True]]


def test_a_forced_head_and_min_density_hold_for_a_rule_of_ones_own() -> None:
    def rule(columns: Columns, image: torch.Tensor) -> Choice:
        return Choice(torch.tensor([1]), torch.tensor([[4, 2]]))

    sums, image = sums_of([[[0.0] * 4] * 2]), torch.ones(1, 4, dtype=torch.bool)

    assert choose(sums, image, EAHConfig(rule=rule, head=0)).head.tolist() == [0]
    # Of the head that it chose, and not of the one with most sinks.
    assert choose(sums, image, EAHConfig(rule=rule, min_density=0.5)).head.tolist() == [1]
    assert choose(sums, image, EAHConfig(rule=rule, min_density=0.51)).head.tolist() == [-1]
