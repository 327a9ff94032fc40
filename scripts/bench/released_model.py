"""A whole model as the authors' release runs it: eager attention, and one layer that shares maps.

Reimplements the release's computation, without eah. To be fair to it, decode steps omit its loop
over the heads, which changes nothing there.

Axes: B batch, H heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from transformers.modeling_utils import AttentionInterface

from scripts.bench.released import RELEASED_THRESHOLD, LayerShape, share_map

NAME: Final = "released"
LAYER: Final = 15
SPAN: Final = LayerShape().released_span


@contextmanager
def released_model(model: Any) -> Iterator[None]:
    """In a `with` block, let a model run the released way.

    Args:
        model: A transformers model with a LLaMA decoder. If it has fewer layers than the release
            needs, maps are shared in its second layer.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    layers = [module for module in model.modules() if _is_decoder_attention(module)]
    target: Any = layers[LAYER if len(layers) > LAYER else 1]
    own = target.config
    AttentionInterface.register(NAME, _attention)
    target.config = copy.copy(own)
    target.config._attn_implementation = NAME
    try:
        yield
    finally:
        target.config = own
        model.set_attn_implementation(before)


def _is_decoder_attention(module: nn.Module) -> bool:
    return type(module).__name__ == "LlamaAttention"


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return output (B, Q, H, D) and weights (B, H, Q, K) of (B, H, Q, D) and (B, N, K, D)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    if query.shape[2] > 1:
        share_map(weights, SPAN, RELEASED_THRESHOLD)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights
