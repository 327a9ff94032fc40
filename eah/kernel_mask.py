"""What a layer's own kernel goes by: which keys it lets rows see, and what EAH can't count.

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

# Scores that these arguments change are not softmax(Q K^T * scale + mask), which is what we count.
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
    """Refuse what would make the counted map another one than the kernel's."""
    if query.shape[2] != prompt.queries:
        raise UnsupportedModelError(
            f"layer {layer} attends with {query.shape[2]} rows for {prompt.queries} tokens of the "
            "prompt, so the places of its image tokens are not known; let the processor expand the "
            "image placeholders, or pass embeddings within `with eah.image_tokens(model, ...)`"
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
            f"layer {layer} has a mask of its own for each of {mask.shape[1]} heads; one head's "
            "map can't be given to the others"
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
    """Return which keys are seen, from what the kernel goes by."""
    rows, keys = query.shape[2], key.shape[2]
    is_flash = "flash" in kernel
    if isinstance(mask, BlockMask):
        mask = create_mask(mask.mask_mod, mask.shape[0], 1, rows, keys, device=str(query.device))
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if isinstance(mask, torch.Tensor) and mask.dim() == 4:
        seen = mask
    elif is_causal and kernel not in ("eager", "flex_attention"):  # these go by their masks alone
        if prompt.cached and not is_flash:
            raise UnsupportedModelError(
                f"the kernel {kernel!r} gets no mask for a pass behind {prompt.cached} cached "
                "tokens, so what it would see is not known; pass the whole prompt at once"
            )
        # Only flash attention goes by the window itself; the others have it in their masks.
        return prompt.visibility(None, kwargs.get("sliding_window") if is_flash else None)
    elif isinstance(mask, torch.Tensor):  # flash attention's mask of padding
        seen = mask.bool()[:, None, None].expand(-1, 1, rows, -1)
    else:
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=query.device)
        seen = seen.expand(1, 1, rows, keys)
    prompt.check_answer(seen)
    return prompt.visibility(seen)
