"""The attention rows of a model's last layer, without computing other maps.

The last attention module calls a function that computes the requested rows, then its own kernel.

Axes: R batch rows, H heads, N key heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from eah.find import attention_modules
from models.decoding.attention_replacement import AttentionCall, Output, replace_attention


@dataclass(slots=True)
class LastRows:
    """The recorded attention rows of the last layer.

    Attributes:
        wanted: Whether the next forward pass records its rows.
        rows: Attention weights, maximum over heads, shape (R, Q, K).
    """

    wanted: bool = False
    rows: torch.Tensor | None = None

    def attend(self, call: AttentionCall) -> Output:
        """Record the rows of a call if `wanted`, then run the kernel."""
        if self.wanted:
            self.rows = _largest(call.query, call.key, call.mask, call.scaling)
        return call.run()

    def take(self) -> torch.Tensor:
        """Return and clear the rows."""
        rows, self.rows = self.rows, None
        assert rows is not None, "no forward pass since `wanted` was set"
        return rows


@contextmanager
def record_last_rows(model: nn.Module) -> Iterator[LastRows]:
    """In a `with` block, record the attention rows of the last decoder layer."""
    modules = attention_modules(model)
    state = LastRows()
    with replace_attention([modules[max(modules)]], state.attend):
        yield state


def _largest(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Return softmax(Q K^T * scaling + mask), maximum over heads, (R, Q, K) float32."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # (R, N, K, D) -> H
    scores = torch.matmul(query, key.transpose(2, 3)).float() * scaling  # (R, H, Q, K)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask[..., : key.shape[2]], torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask[..., : key.shape[2]].float()
    return scores.softmax(-1).amax(1)
