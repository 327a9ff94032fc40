"""The prompt of one forward pass: its image tokens, its padding, and where its answer begins.

Shared by the library and the drop-in file. Needs torch only.

Axes: B batch, Q queries (rows of this pass), K keys (cached tokens and this pass's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch

from eah.errors import EAHStateError
from eah.visibility import Visibility, is_visible

NO_IMAGE: Final = "the prompt has no image tokens"
CACHED_IMAGE: Final = (
    "the image tokens are in the cache already; what follows them is treated like a decode step"
)
LATER_IMAGE: Final = "the image tokens are not in this pass but in a later one"


class ImageColumns(NamedTuple):
    """Image tokens among the keys of a pass.

    Attributes:
        here: True at image tokens, shape (B, K) bool.
        later: Rows with image tokens after the last key, shape (B,) bool; None for none.
    """

    here: torch.Tensor
    later: torch.Tensor | None = None


@dataclass(frozen=True)
class Prompt:
    """One forward pass.

    Attributes:
        queries: Number of query rows, Q.
        cached: Number of tokens in the KV cache before it.
        image: Image tokens that are counted, shape (B, K) bool; None if they are not known.
        valid: True at the prompt's tokens, shape (B, K) bool; None if all are.
        answer: First position of the answer per batch row, shape (B, 1) int64; None for no answer.
        skipped: Why EAH does not act in the pass; None if it acts.
        is_decoding: Whether all rows belong to the answer, so that the pass has no findings.
        may_be_text: Whether it is not yet checked if there are image tokens: that waits for a GPU.
    """

    queries: int
    cached: int
    image: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    answer: torch.Tensor | None = None
    skipped: str | None = None
    is_decoding: bool = False
    may_be_text: bool = False

    def is_text(self) -> bool:
        """Return whether there is no image token after all (waits for the device)."""
        return self.may_be_text and self.image is not None and not bool(self.image.any())

    def visibility(self, mask: torch.Tensor | None, window: int | None = None) -> Visibility:
        """Return the visible keys per row.

        Args:
            mask: The kernel's mask; None for causal attention.
            window: Length of the sliding window; None for none.
        """
        valid = self.valid
        if mask is not None and valid is None:
            valid = torch.ones(1, self.cached + self.queries, dtype=torch.bool, device=mask.device)
        return Visibility(self.cached, mask, valid, window)

    def columns(self, keys: int, device: torch.device) -> torch.Tensor:
        """Return the image columns among keys that may be more than the tokens (static cache)."""
        assert self.image is not None, "only a pass with known image tokens is counted"
        if keys == self.image.shape[1] and device == self.image.device:
            return self.image
        columns = torch.zeros(self.image.shape[0], keys, dtype=torch.bool, device=device)
        columns[:, : self.image.shape[1]] = self.image.to(device)
        return columns

    def answer_rows(self, device: torch.device) -> torch.Tensor | None:
        """Return which query rows belong to the answer, shape (B, Q); None without an answer."""
        if self.answer is None:
            return None
        position = torch.arange(self.cached, self.cached + self.queries, device=device)
        return position[None] >= self.answer.to(device)

    def check_answer(self, mask: torch.Tensor) -> None:
        """Refuse a prompt whose rows see its answer, which differs from decoding.

        Args:
            mask: Bool or additive mask, shape (B or 1, 1, Q, K or wider).
        Raises:
            EAHStateError: If a row of the prompt sees a token of the answer.
        """
        if self.answer is None:
            return
        stop = self.cached + self.queries
        answer = torch.arange(stop, device=mask.device)[None] >= self.answer.to(mask.device)  # B, K
        # Padding rows are left out: some versions of transformers let them see everything.
        tokens = ~answer if self.valid is None else self.valid.to(mask.device)
        asks = tokens[:, None, self.cached :, None]  # (B, 1, Q, 1)
        if bool((is_visible(mask[..., :stop]) & asks & answer[:, None, None]).any()):
            raise EAHStateError(
                "rows of the prompt attend to its answer (attention that is not causal), so "
                "scoring the answer in one pass differs from generating it; generate it, or "
                "disable EAH"
            )


def cached_tokens(past: Any) -> int:
    """Return the number of tokens in a KV cache: None, tuples of tensors, or a class."""
    if past is None:
        return 0
    if isinstance(past, (tuple, list)):
        return int(past[0][0].shape[2]) if past and past[0] is not None else 0
    return int(past.get_seq_length())


def token_mask(mask: Any, cached: int, queries: int) -> torch.Tensor | None:
    """Return True at tokens and False at padding, shape (B, K); None if nothing is padded.

    Args:
        mask: The model's attention mask: 2-D, 4-D, transformers' dictionary of 4-D masks, or None.
        cached: Tokens in the cache.
        queries: Query rows of this pass.
    """
    if isinstance(mask, dict):
        mask = next((part for part in mask.values() if isinstance(part, torch.Tensor)), None)
    if not isinstance(mask, torch.Tensor) or mask.dim() not in (2, 4):
        return None
    keys = cached + queries
    if mask.dim() == 2:
        return mask[:, :keys].bool() if mask.shape[1] >= keys else None
    return is_visible(mask[:, 0, :, :keys]).any(1)  # no row sees padding


def columns_of_span(
    span: tuple[int, int], batch: int, keys: int, valid: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns of a span of image tokens in padded prompts; padding is not counted.

    Args:
        span: Image tokens [start, stop) of a prompt.
        batch: Batch rows, B.
        keys: Number of tokens, padding included, K.
        valid: True at tokens, shape (B, K); None if nothing is padded.
        device: Device of the result.
    Returns:
        Image columns, (B, K) bool, and the number of tokens of each prompt, (B,).
    """
    start, stop = span
    pads = torch.zeros(batch, 1, dtype=torch.long, device=device)
    length = torch.full((batch,), keys, device=device)
    if valid is not None:
        valid = repeat_rows(valid.to(device), batch, "attention mask")
        pads = (~valid).long().cumprod(-1).sum(-1, keepdim=True)  # before the first token
        length = valid.sum(-1)
    column = torch.arange(keys, device=device)[None] - pads
    return (column >= start) & (column < stop), length


def check_unpadded(valid: torch.Tensor | None) -> None:
    """Refuse padding for the rule "released_code", whose divisor counts from the ends of a span.

    Raises:
        EAHStateError: If anything is padded.
    """
    if valid is not None and not bool(valid.all()):
        raise EAHStateError(
            "the preset released-code reproduces the authors' file for single prompts without "
            "padding; run such prompts one by one, or use another preset"
        )


def columns_of_mask(
    mask: torch.Tensor, batch: int, keys: int, device: torch.device
) -> ImageColumns:
    """Return the columns of a mask of image tokens, (B or prompts before beams, S) bool."""
    mask = repeat_rows(mask.to(device), batch, "image mask")
    width = min(mask.shape[1], keys)
    columns = torch.zeros(batch, keys, dtype=torch.bool, device=device)
    columns[:, :width] = mask[:, :width]
    return ImageColumns(columns, mask[:, width:].any(-1) if mask.shape[1] > keys else None)


def repeat_rows(rows: torch.Tensor, batch: int, name: str) -> torch.Tensor:
    """Repeat one row per prompt for each of its beams, up to B rows.

    Raises:
        EAHStateError: If B is not a multiple of the number of rows.
    """
    if batch % len(rows):
        raise EAHStateError(
            f"{name} of {len(rows)} rows for a batch of {batch}; give one row per prompt (beams "
            "repeat them)"
        )
    return rows.repeat_interleave(batch // len(rows), dim=0)


def read_prompt(
    columns: ImageColumns,
    *,
    queries: int,
    cached: int,
    valid: torch.Tensor | None,
    answer: torch.Tensor | None,
    continues: bool = False,
    has_more: bool = False,
    checks_for_image: bool = True,
) -> Prompt:
    """Decide whether EAH acts in a pass whose image tokens are known.

    Args:
        columns: Image tokens among the keys, cached ones included.
        queries: Query rows.
        cached: Tokens in the cache.
        valid: True at tokens, shape (B or 1, K); None if nothing is padded.
        answer: First position of the answer per batch row, shape (B, 1), or None.
        continues: Whether the pass continues from a cached prefix whose sums are stored.
        has_more: Whether a later pass has the rest of the prompt.
        checks_for_image: Whether to check for an image in a prompt that can't be split.
    Raises:
        EAHStateError: If a prompt is split over passes within or after its image.
    """
    image = columns.here
    if answer is not None:
        answer = answer.to(image.device)
        before = torch.arange(cached + queries, device=image.device)[None] < answer  # (B, K)
        image = image & before
        valid = before if valid is None else valid.to(image.device) & before
    if not has_more and continues:
        return Prompt(queries, cached, image, valid, answer)
    if not has_more and not checks_for_image and not cached and columns.later is None:
        return Prompt(queries, cached, image, valid, answer, may_be_text=True)
    behind, here = image[:, :cached].any(-1), image[:, cached:].any(-1)  # (B,)
    later = torch.zeros_like(here) if columns.later is None else columns.later
    split = (here & (behind | later)).any() if not continues else torch.zeros_like(here).any()
    # One synchronization with the device; decode steps need none.
    is_split, any_here, any_behind, any_later = torch.stack(
        [split, here.any(), behind.any(), later.any()]
    ).tolist()
    if is_split or (has_more and any_here):
        raise EAHStateError(
            "a prompt's image tokens are split over forward passes (some are in this pass, others, "
            "or text that follows them, in the cache or in a later pass), so none of them sees the "
            "whole prompt; pass it at once (no prefill_chunk_size, no cached image), or disable "
            "EAH for it"
        )
    skipped = None
    if not any_here and not continues:
        skipped = CACHED_IMAGE if any_behind else LATER_IMAGE if any_later else NO_IMAGE
    if any_behind and not continues:
        image = image & ~behind[:, None]  # these rows continue from a cached image
    return Prompt(queries, cached, image, valid, answer, skipped)
