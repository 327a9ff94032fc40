"""A KV cache that starts with prefixes and grows in place.

transformers' own cache copies all keys and values for each new token, and would copy the prefixes
three times before the first.

Axes: R rows (prompts and their beams), P positions of a prefix, N key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers.cache_utils import DynamicLayer

ROOM: Final = 64  # positions that are added at a time


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values, with room behind them.

    `keys` and `values` are views of what is filled, (R, N, length, D). Whoever replaces them, as
    beam search does, gets a copy with new room at the next update.
    """

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        """Copy prefixes, each (1, N, P, D), one per row."""
        super().__init__()
        self.dtype, self.device = keys[0].dtype, keys[0].device
        self.is_initialized = True
        self._room_keys, self.keys = _with_room(keys)
        self._room_values, self.values = _with_room(values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, (R, N, new, D), and return all of them."""
        self._room_keys, self.keys = _appended(self._room_keys, self.keys, key_states)
        self._room_values, self.values = _appended(self._room_values, self.values, value_states)
        return self.keys, self.values


def _with_room(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return memory that holds rows, each (1, N, length, D), with room behind, and its view."""
    _, heads, length, size = rows[0].shape
    room = rows[0].new_empty(len(rows), heads, length + ROOM, size)
    filled = room[:, :, :length]
    for target, row in zip(filled, rows, strict=True):
        target.copy_(row[0])
    return room, filled


def _appended(
    room: torch.Tensor, filled: torch.Tensor, new: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return memory and view after appending."""
    start, stop = filled.shape[2], filled.shape[2] + new.shape[2]
    is_view = filled.data_ptr() == room.data_ptr() and filled.stride() == room.stride()
    if not is_view or len(filled) != len(room) or stop > room.shape[2]:
        room = filled.new_empty(*filled.shape[:2], stop + ROOM, filled.shape[3])
        room[:, :, :start] = filled
    room[:, :, start:stop] = new
    return room, room[:, :, :stop]
