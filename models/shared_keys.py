"""Attention of many prompts on prefixes that they share, without a copy of the prefix for each.

The cache holds what follows the prefixes only. Scores on the prefix's keys and on what follows are
put side by side before the softmax, so this is plain attention: what is saved is memory and its
traffic, in each decode step too.

Axes: R rows (prompts and their beams), U prefixes, M rows of the prefix that most rows have, P
positions of a prefix, H heads, N key/value heads, Q queries, T keys behind the prefix, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from models.cache import GrowingLayer
from models.decoding.own_attention import state_of

NAME: Final = "shared_prefix"
KERNELS: Final = ("eager", "sdpa")


class RestLayer(GrowingLayer):
    """One layer's keys and values behind the prefixes, which count in its length."""

    def __init__(self, prefix: torch.Tensor, rows: int) -> None:
        """Start empty, for so many rows behind prefixes like (1, N, P, D)."""
        empty = [prefix[:, :, :0]] * rows
        super().__init__(empty, empty)
        self._prefix = prefix.shape[2]

    def get_seq_length(self, *_: Any) -> int:
        """Return the number of tokens, the prefix's included."""
        return self._prefix + int(self.keys.shape[2])


@dataclass(slots=True)
class SharedKeys:
    """Keys and values of the prefixes of a batch, and which row goes on behind which.

    Attributes:
        layers: By layer, keys and values, each (U, N, P, D).
    """

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _rows: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _places: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def assign(self, prefixes: Sequence[int], device: torch.device) -> None:
        """Say which prefix each row goes on behind.

        Args:
            prefixes: Index of a prefix, from 0 to U - 1, per row.
            device: Where the first layer is.
        """
        members: list[list[int]] = [[] for _ in range(max(prefixes) + 1)]
        places = []
        for row, prefix in enumerate(prefixes):
            places.append((prefix, len(members[prefix])))
            members[prefix].append(row)
        most = max(map(len, members))
        # Prefixes with fewer rows compute one of them again.
        padded = [rows + rows[-1:] * (most - len(rows)) for rows in members]
        self._rows = torch.tensor(padded, device=device)  # (U, M)
        flat = [prefix * most + at for prefix, at in places]
        self._places = torch.tensor(flat, device=device)  # (R,)

    def by_prefix(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what rows have, (R, N, X, Y), prefix by prefix, (U, N, M * X, Y)."""
        heads, size = rows.shape[1], rows.shape[3]
        index = self._rows.to(rows.device)
        grouped = rows[index].transpose(1, 2)  # (U, M, N, X, Y) -> (U, N, M, X, Y)
        return grouped.reshape(len(index), heads, -1, size)

    def by_row(self, grouped: torch.Tensor) -> torch.Tensor:
        """Return what prefixes have, (U, N, M * X, Y), row by row, (R, N, X, Y)."""
        prefixes, heads, _, size = grouped.shape
        most = self._rows.shape[1]
        apart = grouped.view(prefixes, heads, most, -1, size).transpose(1, 2)
        return apart.flatten(0, 1)[self._places.to(grouped.device)]


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the prefixes and to what follows.

    Args:
        module: The attention module, whose state (`own_attention`) is `SharedKeys`.
        query: Shape (R, H, Q, D).
        key: Keys behind the prefix, shape (R, N, T, D).
        value: Shape (R, N, T, D).
        attention_mask: Of prefix and rest, (R, 1, Q, P + T), bool or additive; None if all is seen.
        scaling: Factor on the scores; D ** -0.5 if None.
    Returns:
        Output, shape (R, Q, H, D), and no weights.
    """
    shared: SharedKeys = state_of(module, NAME)
    index: Any = module.layer_idx
    first_keys, first_values = shared.layers[index]
    rows, heads, queries, size = query.shape
    length, rest = first_keys.shape[2], key.shape[2]
    # Grouped heads are folded into rows, so that keys are not repeated per head.
    folded = query.reshape(rows, key.shape[1], -1, size) * (scaling or size**-0.5)
    first = shared.by_row(torch.matmul(shared.by_prefix(folded), first_keys.transpose(2, 3)))
    scores = torch.cat([first, torch.matmul(folded, key.transpose(2, 3))], dim=-1).float()
    if attention_mask is not None:
        apart = scores.view(rows, heads, queries, length + rest)
        behind = attention_mask[..., length : length + rest]
        if behind.dtype == torch.bool:
            apart[..., length:].masked_fill_(~behind, torch.finfo(scores.dtype).min)
        else:
            apart[..., length:] += behind
    weights = scores.softmax(-1).to(value.dtype)  # (R, N, H / N * Q, P + T)
    output = torch.matmul(weights[..., length:], value)
    output += shared.by_row(torch.matmul(shared.by_prefix(weights[..., :length]), first_values))
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None
