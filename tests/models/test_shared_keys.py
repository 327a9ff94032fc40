"""Attention on shared prefixes is attention on each row's own copy of all keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.decoding import own_attention
from models.shared_keys import NAME, RestLayer, SharedKeys, attention

LENGTH, REST, HEADS, SIZE = 7, 4, 6, 8
CASES = {
    "one each": [0, 1, 2],
    "equal groups": [0, 0, 1, 1],
    "unequal and mixed": [0, 1, 0, 2, 1, 0, 0],
    "all the same": [0, 0, 0],
}


@pytest.mark.parametrize(
    ("queries", "mask_kind"),
    [(1, "none"), (1, "bool"), (1, "additive"), (REST, "bool"), (REST, "additive")],
)
@pytest.mark.parametrize("kv_heads", [6, 2])
@pytest.mark.parametrize("prefixes", CASES.values(), ids=CASES)
def test_output_is_that_of_plain_attention(
    queries: int, kv_heads: int, prefixes: list[int], mask_kind: str
) -> None:
    rows = len(prefixes)
    query = torch.randn(rows, HEADS, queries, SIZE)
    rest = torch.randn(2, rows, kv_heads, REST, SIZE)
    first = torch.randn(2, max(prefixes) + 1, kv_heads, LENGTH, SIZE)
    keys, values = torch.cat([first[:, prefixes], rest], dim=3)
    seen = torch.ones(queries, LENGTH + REST, dtype=torch.bool).tril(LENGTH + REST - queries)
    seen = seen.expand(rows, 1, -1, -1).clone()
    if mask_kind != "none":
        seen[0, :, :, LENGTH : LENGTH + 2] = False  # padding behind the prefix
        if queries > 1:  # and a padding row still sees the prefix
            assert seen[0, 0, 0].sum() == LENGTH
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    module = nn.Module()
    module.layer_idx = 3
    shared = SharedKeys({3: (first[0], first[1])})
    shared.assign(prefixes, torch.device("cpu"))
    setattr(module, own_attention._kept(NAME), (None, shared))

    mask = {"none": None, "bool": seen, "additive": additive}[mask_kind]
    output, weights = attention(module, query, *rest, mask)

    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True)
    assert weights is None
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_the_rest_counts_the_prefix_in_its_length() -> None:
    layer = RestLayer(torch.randn(1, 2, LENGTH, SIZE), rows=3)
    assert layer.get_seq_length() == LENGTH

    keys, _ = layer.update(*torch.randn(2, 3, 2, REST, SIZE))

    assert keys.shape == (3, 2, REST, SIZE)
    assert layer.get_seq_length() == LENGTH + REST


def test_rows_and_prefixes_are_there_and_back_again() -> None:
    shared = SharedKeys()
    shared.assign([2, 0, 2, 1, 2], torch.device("cpu"))
    rows = torch.randn(5, 2, 3, 4)

    grouped = shared.by_prefix(rows)

    assert grouped.shape == (3, 2, 9, 4)
    assert torch.equal(shared.by_row(grouped), rows)
