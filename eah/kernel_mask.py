"""Visible keys per query row, from the arguments of a layer's kernel; refuses unsupported ones.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_mask

from eah.errors import UnsupportedModelError
from eah.prompt import Prompt
from eah.visibility import Visibility

# With these arguments, attention is not softmax(Q K^T * scale + mask), which is what EAH counts.
UNSUPPORTED_ARGUMENTS: Final = (
    "softcap", "s_aux", "sinks", "position_bias", "head_mask", "indices", "block_indices", "cache",
)  # fmt: skip
PACKED_ARGUMENTS: Final = ("cu_seq_lens_q", "cu_seqlens_q", "block_table")


def check_arguments(
    layer: int,
    kernel: str,
    prompt: Prompt,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: Any,
    kwargs: Any,
) -> None:
    """Refuse arguments with which the counted map would differ from the kernel's."""
    if query.shape[2] != prompt.queries:
        raise UnsupportedModelError(
            f"layer {layer} attends with {query.shape[2]} rows for {prompt.queries} tokens of the "
            "prompt, so the positions of its image tokens are not known; let the processor expand "
            "the image placeholders, or pass embeddings within `with eah.image_tokens(model, ...)`"
        )
    if prompt.cached + prompt.queries > key.shape[2]:
        raise UnsupportedModelError(
            f"layer {layer} has {key.shape[2]} keys for {prompt.cached + prompt.queries} tokens (a "
            "sliding window's cache drops the oldest); pass the whole prompt at once, without a "
            "cache"
        )
    for name in UNSUPPORTED_ARGUMENTS:
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(
                f"layer {layer} passes {name!r} to its attention kernel; EAH counts plain softmax "
                "attention only: choose other layers or another model"
            )
    packed = [name for name in PACKED_ARGUMENTS if kwargs.get(name) is not None]
    position = kwargs.get("position_ids")
    if "flash" in kernel and len(query) == 1 and position is not None and position.dim() == 2:
        packed += ["position_ids"] if bool((position.diff() < 0).any()) else []
    if packed:
        raise UnsupportedModelError(
            f"layer {layer} gets several prompts packed into one row ({packed[0]}); EAH needs one "
            "prompt per batch row: pad them instead"
        )
    if isinstance(mask, (torch.Tensor, BlockMask)) and len(mask.shape) == 4 and mask.shape[1] != 1:
        raise UnsupportedModelError(
            f"layer {layer} has a separate mask for each of {mask.shape[1]} heads, so one head's "
            "map can't be shared; choose other layers or another model"
        )


def kernel_visibility(
    kernel: str,
    module: nn.Module,
    prompt: Prompt,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: Any,
    kwargs: dict[str, Any],
) -> Visibility:
    """Return the visible keys per query row, from the kernel's mask."""
    rows, keys = query.shape[2], key.shape[2]
    is_flash = "flash" in kernel
    if isinstance(mask, BlockMask):
        mask = create_mask(mask.mask_mod, mask.shape[0], 1, rows, keys, device=str(query.device))
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if isinstance(mask, torch.Tensor) and mask.dim() == 4:
        seen = mask
    elif is_causal and kernel not in ("eager", "flex_attention"):  # these use only their masks
        if prompt.cached and not is_flash:
            raise UnsupportedModelError(
                f"the kernel {kernel!r} gets no mask for a pass after {prompt.cached} cached "
                "tokens, so the visible keys are not known; pass the whole prompt at once"
            )
        # Only flash attention takes the window as an argument; for others it is in the mask.
        return prompt.visibility(None, kwargs.get("sliding_window") if is_flash else None)
    elif isinstance(mask, torch.Tensor):  # flash attention's mask of padding
        seen = mask.bool()[:, None, None].expand(-1, 1, rows, -1)
    else:
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=query.device)
        seen = seen.expand(1, 1, rows, keys)
    prompt.check_answer(seen)
    return prompt.visibility(seen)
