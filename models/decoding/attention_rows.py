"""The last rows of an attention map: their scores, and the output of changed weights.

A method changes the rows from which answers are chosen, or all rows after the image. Only these are
computed here; the kernel computes all others.

Axes: R batch rows, H heads, N key heads, Q queries, K keys, D head size, n changed rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch

from models.decoding.attention_replacement import AttentionCall
from models.prompt_images import PromptImages

NEVER: Final = 1 << 40  # beyond the positions of any prompt or answer


class ChangedRows(Enum):
    """Rows of the map that a method changes."""

    LAST = "the last row of the prompt, and each generated token's"
    AFTER_IMAGE = "the rows after the image, and each generated token's"
    ALL = "all rows"


@dataclass(frozen=True, slots=True)
class Rows:
    """The last n rows of a pass, some of which are changed.

    Attributes:
        call: The attention call.
        images: The prompts.
        count: Number of rows, n.
        changed: True at changed rows, shape (R, n).
        image: True at image tokens among the keys, shape (R, K).
        starts: Position of each row's first image token, shape (R,).
        stops: Position after each row's last image token, shape (R,).
        are_all: Whether these are all rows of the pass and all change.
    """

    call: AttentionCall
    images: PromptImages
    count: int
    changed: torch.Tensor
    image: torch.Tensor
    starts: torch.Tensor
    stops: torch.Tensor
    are_all: bool

    @classmethod
    def of(cls, call: AttentionCall, images: PromptImages, which: ChangedRows) -> Rows:
        """Return the rows of a call that a method changes; prompts without an image have none."""
        (rows, _, queries, _), keys = call.query.shape, call.key.shape[2]
        length, device = images.length, call.query.device
        shown = [start < length for start in images.starts]
        first = {
            ChangedRows.LAST: [length - 1] * len(shown),
            ChangedRows.AFTER_IMAGE: images.stops,
            ChangedRows.ALL: [0] * len(shown),
        }[which]
        first = [at if has else NEVER for at, has in zip(first, shown, strict=True)]
        at = min(max(call.offset, min(first)), keys)
        count = keys - at
        image = images.key_mask(rows, max(keys, length), device)[:, :keys]
        starts, stops, begin = (
            images.tensor(values, rows, device) for values in (images.starts, images.stops, first)
        )
        changed = torch.arange(at, keys, device=device)[None] >= begin[:, None]
        are_all = count == queries and max(first) <= call.offset
        return cls(call, images, count, changed, image, starts, stops, are_all)

    @property
    def columns(self) -> torch.Tensor:
        """Position of each key, shape (1, K)."""
        return torch.arange(self.call.key.shape[2], device=self.image.device)[None]

    def own(self) -> torch.Tensor:
        """Return the output of the module's own kernel for the rows, shape (R, n, H, D)."""
        return self.call.run()[0][:, -self.count :]

    def scores(self, heads: torch.Tensor | None = None) -> torch.Tensor:
        """Return q k * scaling before the mask, (R, H, n, K) float32; only of `heads` if given."""
        query, key = self.call.query[:, :, -self.count :], self.call.key
        if heads is not None:
            query, key = query[:, heads], key[:, heads // self._groups]
        rows, kv_heads, keys, size = key.shape
        # Fold grouped heads into rows, so that keys are not repeated per head.
        folded = query.reshape(rows, kv_heads, -1, size)
        scores = torch.matmul(folded, key.mT).float() * self.call.scaling
        return scores.view(rows, -1, self.count, keys)

    def weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Return softmax(scores + mask) over the keys, (R, H, n, K) float32."""
        mask, keys = self.call.mask, scores.shape[-1]
        # Not -inf: a padding row sees no key, and its softmax must stay finite.
        hidden = torch.finfo(scores.dtype).min
        if isinstance(mask, torch.Tensor):
            mask = mask[:, :, -self.count :, :keys]
            if mask.dtype == torch.bool:
                scores = scores.masked_fill(~mask, hidden)
            else:
                scores = scores + mask.float().clamp(min=hidden / 2)
        elif self.count > 1:
            last = torch.arange(keys - self.count, keys, device=scores.device)[:, None]
            scores = scores.masked_fill(self.columns > last, hidden)
        return scores.softmax(-1)

    def output(self, weights: torch.Tensor, heads: torch.Tensor | None = None) -> torch.Tensor:
        """Return weights (R, H, n, K) times values, shape (R, n, H, D)."""
        value = self.call.value
        if heads is not None:
            value = value[:, heads // self._groups]
        rows, kv_heads, keys, size = value.shape
        folded = weights.to(value.dtype).reshape(rows, kv_heads, -1, keys)
        output = torch.matmul(folded, value).view(rows, -1, self.count, size)
        return output.transpose(1, 2)

    @property
    def _groups(self) -> int:
        return int(self.call.query.shape[1] // self.call.key.shape[1])


def mask_of_last_row(call: AttentionCall) -> torch.Tensor:
    """Return a mask that shows every row of a prompt the keys of its last row, (R, 1, Q, K)."""
    rows, _, queries, _ = call.query.shape
    keys = call.key.shape[2]
    if isinstance(call.mask, torch.Tensor):
        return call.mask[:, :, -1:, :keys].expand(-1, -1, queries, -1)
    return call.query.new_zeros(rows, 1, queries, keys)
