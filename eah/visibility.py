"""Visible keys per query row. Needs torch only.

Axes: B batch, Q queries (rows of this pass), K keys (cached tokens and this pass's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

# A key with such a bias is hidden: its weight is at most exp(-50) = 2e-22 of an unbiased key's,
# which float32 sums lose. Masks hide keys by -1e4, -1e9, finfo.min or -inf.
HIDDEN_BIAS: Final = -50.0


@dataclass(frozen=True)
class Visibility:
    """Visible keys per query row, in the form that the attention kernel receives.

    Attributes:
        offset: Position of query row 0 among the keys (number of cached tokens).
        mask: Mask of shape (B or 1, 1, Q, K or wider), bool (True: visible) or additive; None for
            causal attention.
        valid: True at the prompt's tokens, False at padding and at an answer's tokens, shape
            (B or 1, K); None if all are the prompt's, or if the mask hides the others.
        window: Sliding-window length in tokens, for causal attention without a mask.
    """

    offset: int = 0
    mask: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    window: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether this is causal attention and nothing else."""
        return self.mask is None and self.valid is None and self.window is None

    def stop_key(self, stop: int, num_keys: int) -> int:
        """Return the end of the keys that rows before `stop` can see."""
        return min(self.offset + stop, num_keys) if self.mask is None else num_keys

    def visible(self, start: int, stop: int, keys: int, device: torch.device) -> torch.Tensor:
        """Return which of keys [0, keys) rows [start, stop) see, (B or 1, rows, keys) bool."""
        if self.mask is not None:
            return is_visible(self.mask[:, 0, start:stop, :keys].to(device))
        position = torch.arange(start, stop, device=device)[:, None] + self.offset
        column = torch.arange(keys, device=device)[None, :]
        seen = column <= position
        if self.window is not None:
            seen = seen & (column > position - self.window)
        if self.valid is None:
            return seen[None]
        return seen[None] & self.valid[:, None, :keys].to(device)

    def bias(self, start: int, stop: int, keys: int) -> torch.Tensor | None:
        """Return what an additive mask adds to the scores, (B or 1, 1, rows, keys)."""
        if self.mask is None or self.mask.dtype == torch.bool:
            return None
        return self.mask[:, :, start:stop, :keys]

    def of_rows(self, start: int, stop: int) -> Visibility:
        """Return the visibility of query rows [start, stop) alone."""
        mask = None if self.mask is None else self.mask[:, :, start:stop]
        return Visibility(self.offset + start, mask, self.valid, self.window)

    def token_rows(self, num_queries: int, device: torch.device) -> torch.Tensor:
        """Return which query rows count: the prompt's tokens, shape (B or 1, Q) bool."""
        if self.valid is not None:
            return self.valid[:, self.offset : self.offset + num_queries].to(device)
        if self.mask is None:
            return torch.ones(1, num_queries, dtype=torch.bool, device=device)
        return _diagonal(self.mask, self.offset)[:, :num_queries].to(device)


def is_visible(mask: torch.Tensor) -> torch.Tensor:
    """Return True where a bool or additive mask lets a key be seen."""
    return mask if mask.dtype == torch.bool else mask > HIDDEN_BIAS


def _diagonal(mask: torch.Tensor, offset: int) -> torch.Tensor:
    """Return which rows see their own key in a mask (B, 1, Q, K), shape (B, Q) bool."""
    return is_visible(mask[:, 0].diagonal(offset, dim1=1, dim2=2))
