"""Properties of the arithmetic: what may change nothing, and what must."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from eah import EAHConfig, blocks
from eah.method import column_sums, share_head
from eah.visibility import Visibility
from tests.eah import oracle
from tests.eah.cases import WAYS, choice_of, make_case, plant_sinks, told

CONFIG = EAHConfig(threshold=0.1)


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(blocks, "CPU_BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "MIN_BLOCK_ROWS", rows)


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cached", [0, 5])
def test_blocks_of_rows_give_the_sums_of_one_block(
    monkeypatch: pytest.MonkeyPatch, rows: int, way: str, cached: int
) -> None:
    case = make_case(2, 4, 2, 17, cached, padding=(2, 0))
    whole = column_sums(case.query, case.key, told(case, way), scaling=case.scaling)

    small_blocks(monkeypatch, rows)
    blocks = column_sums(case.query, case.key, told(case, way), scaling=case.scaling)

    torch.testing.assert_close(blocks, whole)


@pytest.mark.parametrize("window", [None, 6])
def test_blocks_of_rows_give_the_sums_of_one_block_without_padding(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    case = make_case(queries=17, window=window)
    whole = column_sums(case.query, case.key, told(case, "causal"), scaling=case.scaling)

    small_blocks(monkeypatch, 4)
    blocks = column_sums(case.query, case.key, told(case, "causal"), scaling=case.scaling)

    torch.testing.assert_close(blocks, whole)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_no_map_of_the_whole_prompt_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(heads=4, queries=64, image=(2, 40))
    small_blocks(monkeypatch, 8)

    with LargestTensor() as largest:
        column_sums(case.query, case.key, Visibility(), scaling=case.scaling)

    assert 8 * 64 <= largest.elements < 4 * 64 * 64 // 4  # one head at a time


def test_permuting_heads_permutes_counts_and_choice() -> None:
    case = plant_sinks(make_case(queries=14, image=(3, 8)), 1)
    order = torch.tensor([2, 3, 0, 1])
    other = replace(case, query=case.query[:, order], key=case.key[:, order])

    before = choice_of(case, Visibility(), CONFIG)
    after = choice_of(other, Visibility(), CONFIG)

    assert len(set(before.counts[0].tolist())) > 1
    assert torch.equal(after.counts, before.counts[:, order])
    assert order[after.head].tolist() == before.head.tolist()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unit", ["attention", "uniform"])
def test_prepending_padding_changes_nothing(way: str, unit: str) -> None:
    plain = make_case(kv_heads=2, queries=12, image=(3, 8))
    padded = make_case(kv_heads=2, queries=17, image=(3, 8), padding=(5,))
    padded.query[:, :, 5:], padded.key[:, :, 5:] = plain.query, plain.key
    config = EAHConfig(threshold=0.1 if unit == "attention" else 1.1, threshold_unit=unit)

    choices, sums = [], []
    for case in (plain, padded):
        choices.append(choice_of(case, told(case, way), config))
        sums.append(column_sums(case.query, case.key, told(case, way), scaling=case.scaling))

    assert choices[0].head.item() >= 0
    assert torch.equal(choices[1].head, choices[0].head)
    assert torch.equal(choices[1].counts, choices[0].counts)
    for alone, beside in zip(*sums, strict=True):
        torch.testing.assert_close(beside[..., 5:], alone)
        assert not beside[..., :5].any()


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_a_shared_head_attends_with_its_map_and_each_heads_values(kv_heads: int) -> None:
    case = make_case(batch=3, kv_heads=kv_heads)
    heads = torch.tensor([3, -1, 0])

    query, key = share_head(case.query, case.key, heads)
    output = F.scaled_dot_product_attention(
        query, key, case.value, is_causal=True, scale=case.scaling, enable_gqa=True
    )

    for b, head in enumerate(heads.tolist()):
        torch.testing.assert_close(output[b], oracle.layer_output(case, b, head))


def test_a_row_without_head_keeps_its_query_and_key_bitwise() -> None:
    case = make_case(batch=2, kv_heads=2)

    query, key = share_head(case.query, case.key, torch.tensor([-1, 2]))

    assert torch.equal(query[0], case.query[0])
    assert torch.equal(key[0], case.key[0])
    assert not torch.equal(query[1], case.query[1])
