"""The package's arithmetic against the loops of oracle.py: sums, counts, head and output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from eah import EAHConfig
from eah.method import column_sums, share_map
from tests.eah import oracle
from tests.eah.cases import (
    WAYS,
    all_means,
    choice_of,
    make_case,
    plant_sinks,
    seen_keys,
    token_rows,
    told,
)
from tests.eah.oracle import Prefill

CASES = {
    "one prompt": {},
    "batch": {"batch": 3},
    "grouped heads": {"heads": 6, "kv_heads": 2},
    "one kv head": {"heads": 4, "kv_heads": 1},
    "padded batch": {"batch": 2, "padding": (3, 0), "queries": 13},
    "padded grouped batch": {"batch": 2, "kv_heads": 2, "padding": (1, 4), "queries": 14},
    "image at the start": {"image": (0, 5)},
    "image at the end": {"image": (4, 10)},
    "only image": {"image": (0, 10)},
    "one image token": {"image": (3, 4)},
    "cached text": {"cached": 4, "image": (5, 9)},
    "image half in the cache": {"cached": 4, "image": (2, 9)},
    "padding in the cache": {"batch": 2, "cached": 4, "padding": (2, 0), "image": (3, 8)},
    "sliding window": {"window": 4},
    "sliding window, padded": {"batch": 2, "window": 5, "padding": (2, 0), "queries": 12},
}


def chosen(case: Prefill, way: str, **settings: Any) -> list[int]:
    """Return the package's heads, after comparing counts, heads and layer output."""
    config = EAHConfig(**settings)
    relative = config.threshold_unit == "uniform"
    choice = choice_of(case, told(case, way), config)
    group = case.shape[1] // case.key.shape[1]

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        return F.scaled_dot_product_attention(
            query, key, value, seen_keys(case), scale=case.scaling
        ).transpose(1, 2)

    output = share_map(case.query, case.key, case.value, choice, attend).transpose(1, 2)
    for b, means in enumerate(all_means(case, relative=relative)):
        counts = oracle.sink_counts(means, config.threshold)
        received = None
        if config.rule == "scale_free":
            received = [sum(row) for row in oracle.image_means(case, b)]
        images, least = sum(case.image[b]), config.min_density
        head = oracle.densest(counts, images, min_density=least, received=received)
        assert choice.counts[b].tolist() == counts
        assert choice.head[b].item() == head
        receivers = None
        if config.receivers != "all":
            receivers = oracle.fewest_sinks(counts, config.receivers)
        expected = oracle.layer_output(case, b, head, receivers)
        torch.testing.assert_close(token_rows(case, output[b], b), token_rows(case, expected, b))
    return choice.head.tolist()


def threshold_of(case: Prefill, *, relative: bool = False) -> float:
    """Return a threshold that some columns pass, none of them by a hair."""
    means = [row for rows in all_means(case, relative=relative) for row in rows]
    threshold = oracle.threshold_with_margin(means)
    if oracle.margin(means, threshold) < 1e-5:
        reject()
    return threshold


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_sums_equal_the_loops(name: str, way: str) -> None:
    case = make_case(**CASES[name])
    batch, heads, _, keys = case.shape

    sums = column_sums(case.query, case.key, told(case, way), scaling=case.scaling)

    for b in range(batch):
        rows = [len(oracle.rows_of_column(case, b, y)) for y in range(keys)]
        assert sums.rows.expand(batch, -1)[b].tolist() == rows
        even = [oracle.uniform_mean(case, b, y) * rows[y] for y in range(keys)]
        torch.testing.assert_close(sums.uniform[b], torch.tensor(even))
        for h in range(heads):
            weights = oracle.attention_map(case, b, h)
            expected = [oracle.column_sum(case, weights, b, y) for y in range(keys)]
            torch.testing.assert_close(sums.attention[b, h], torch.tensor(expected))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_head_and_output_equal_the_loops(name: str, way: str) -> None:
    case = make_case(**CASES[name])

    heads = chosen(case, way, threshold=threshold_of(case))

    assert any(head >= 0 for head in heads)


@pytest.mark.parametrize("name", CASES)
def test_scale_free_head_and_output_equal_the_loops(name: str) -> None:
    case = make_case(**CASES[name])
    threshold = threshold_of(case, relative=True)

    heads = chosen(case, "causal", rule="scale_free", threshold=threshold)

    assert any(head >= 0 for head in heads)


@pytest.mark.parametrize("winner", [0, 1, 3])
def test_the_head_that_looks_at_the_image_wins(winner: int) -> None:
    case = plant_sinks(make_case(kv_heads=2, queries=14, image=(3, 8)), winner)

    assert chosen(case, "causal", threshold=0.15) == [winner]


@pytest.mark.parametrize("way", ["additive mask", "additive mask and padding"])
def test_finite_values_of_an_additive_mask_are_part_of_the_scores(way: str) -> None:
    case = make_case(batch=2, kv_heads=2, padding=(0, 3), queries=13)
    case.bias = torch.randn(13, 13).mul(2).tolist()

    sums = column_sums(case.query, case.key, told(case, way), scaling=case.scaling)

    for b in range(2):
        for h in range(4):
            weights = oracle.attention_map(case, b, h)
            expected = [oracle.column_sum(case, weights, b, y) for y in range(13)]
            torch.testing.assert_close(sums.attention[b, h], torch.tensor(expected))


def test_without_sinks_every_head_keeps_its_own_map() -> None:
    case = make_case(batch=2)

    assert chosen(case, "causal", threshold=0.999) == [-1, -1]


def test_equal_counts_go_to_the_lowest_head() -> None:
    case = plant_sinks(make_case(queries=14, image=(3, 8)), 3)
    case.query[:, 2], case.key[:, 2] = case.query[:, 3], case.key[:, 3]

    assert chosen(case, "causal", threshold=0.15) == [2]


def test_scale_free_gives_ties_to_the_larger_image_attention() -> None:
    case = plant_sinks(make_case(queries=14, image=(3, 8)), 2)
    everywhere = {"threshold": 1e-6, "threshold_unit": "uniform"}

    assert chosen(case, "causal", rule="paper", **everywhere) == [0]
    assert chosen(case, "causal", rule="scale_free", **everywhere) == [2]


@pytest.mark.parametrize("receivers", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["batch", "grouped heads", "padded grouped batch"])
def test_only_the_heads_with_fewest_sinks_receive_the_map(name: str, receivers: int) -> None:
    case = make_case(**CASES[name])

    heads = chosen(case, "causal", threshold=threshold_of(case), receivers=receivers)

    assert any(head >= 0 for head in heads)


def test_a_batch_row_without_image_keeps_its_own_maps() -> None:
    case = plant_sinks(make_case(batch=2, queries=14, image=(3, 8)), 1)
    case.image[0] = [False] * 14

    assert chosen(case, "causal", threshold=0.15) == [-1, 1]


@st.composite
def prefills(draw: st.DrawFn) -> Prefill:
    batch, kv_heads, group = (draw(st.integers(1, top)) for top in (3, 2, 3))
    queries, cached = draw(st.integers(2, 9)), draw(st.integers(0, 4))
    padding = [draw(st.integers(0, cached + queries - 2)) for _ in range(batch)]
    torch.manual_seed(draw(st.integers(0, 2**31)))
    case = make_case(batch, kv_heads * group, kv_heads, queries, cached, size=4)
    case.padding = padding
    case.window = draw(st.none() | st.integers(1, 6))
    columns = st.lists(st.booleans(), min_size=cached + queries, max_size=cached + queries)
    drawn = [draw(columns) for _ in range(batch)]
    case.image = [
        [on and case.is_token(b, y) for y, on in enumerate(row)] for b, row in enumerate(drawn)
    ]
    assume(any(map(any, case.image)))
    return case


@settings(max_examples=60, deadline=None, derandomize=True)
@given(prefills(), st.sampled_from(WAYS), st.booleans(), st.integers(0, 6), st.integers(1, 6))
def test_any_prefill_equals_the_loops(
    case: Prefill, way: str, relative: bool, sevenths: int, receivers: int
) -> None:
    threshold = threshold_of(case, relative=relative)
    # A thousandth above a seventh: no share of 13 columns or fewer lies within rounding of it.
    density = sevenths / 7 + 0.001
    rule = "scale_free" if relative else "paper"
    heads = case.shape[1]

    chosen(
        case,
        way,
        threshold=threshold,
        min_density=density,
        rule=rule,
        receivers=receivers if receivers < heads else "all",
    )
