"""A cache that grows in place holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from models.cache import ROOM, GrowingLayer

ROWS, HEADS, LENGTH, SIZE = 3, 2, 5, 4


def pair() -> tuple[GrowingLayer, DynamicLayer]:
    """Return a growing layer and transformers' own with the same prefixes."""
    keys, values = torch.randn(2, ROWS, HEADS, LENGTH, SIZE)
    growing = GrowingLayer(keys.split(1), values.split(1))
    plain = DynamicLayer()
    plain.update(keys, values)
    return growing, plain


def same(growing: GrowingLayer, plain: DynamicLayer) -> bool:
    lengths = growing.get_seq_length() == plain.get_seq_length() == plain.keys.shape[2]
    return (
        lengths
        and torch.equal(growing.keys, plain.keys)
        and torch.equal(growing.values, plain.values)
    )


def update_both(growing: GrowingLayer, plain: DynamicLayer, new: int) -> None:
    keys, values = torch.randn(2, len(plain.keys), HEADS, new, SIZE)
    returned = growing.update(keys, values)
    expected = plain.update(keys, values)
    assert all(map(torch.equal, returned, expected))


def test_it_starts_with_its_prefixes() -> None:
    assert same(*pair())


@pytest.mark.parametrize("steps", [[1], [3, 1, 1], [1] * (2 * ROOM + 3), [ROOM + 1, 1]])
def test_it_grows_as_transformers_own(steps: list[int]) -> None:
    growing, plain = pair()

    for new in steps:
        update_both(growing, plain, new)

    assert same(growing, plain)


def test_it_grows_in_place() -> None:
    growing, plain = pair()
    start = growing.keys.data_ptr()

    for _ in range(ROOM):
        update_both(growing, plain, 1)
        assert growing.keys.data_ptr() == start
    update_both(growing, plain, 1)

    assert growing.keys.data_ptr() != start


def test_an_earlier_view_keeps_its_content() -> None:
    growing, plain = pair()
    earlier = growing.keys
    content = earlier.clone()

    update_both(growing, plain, 2)

    assert torch.equal(earlier, content)


@pytest.mark.parametrize("change", ["reorder", "select", "repeat", "crop"])
def test_what_replaces_its_keys_is_obeyed(change: str) -> None:
    growing, plain = pair()
    update_both(growing, plain, 3)

    for layer in (growing, plain):
        if change == "reorder":
            layer.reorder_cache(torch.tensor([2, 2, 0]))
        elif change == "select":
            layer.batch_select_indices(torch.tensor([1, 0]))
        elif change == "repeat":
            layer.batch_repeat_interleave(2)
        else:
            layer.crop(-2)
    assert same(growing, plain)
    for _ in range(3):
        update_both(growing, plain, 1)

    assert same(growing, plain)
