"""More attention to image tokens for the newest token, in some of a model's layers.

The layers' attention modules call a function that runs their own kernel and replaces the output of
the last row.
Axes: R batch rows, H heads, N key heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from eah import is_enabled
from eah.attention import ATTENTION_NAME
from eah.find import attention_modules
from models.decoding.base import MethodError
from models.decoding.own_attention import replaced, run_own_kernel, state_of

NAME: Final = "image_boost"


@dataclass(frozen=True, slots=True)
class Boost:
    """What a changed attention module carries.

    Attributes:
        image: True at image tokens of the prompts, shape (R, S).
        alpha: Growth of the scores on them.
    """

    image: torch.Tensor
    alpha: float


@contextmanager
def boosted(
    model: nn.Module, start_layer: int, image: torch.Tensor, alpha: float
) -> Iterator[None]:
    """Raise the newest token's scores on image tokens, in a `with` block.

    Args:
        model: The language model.
        start_layer: First layer that is changed.
        image: True at image tokens, shape (R, S); a row without any is left as it is.
        alpha: The scores grow by so many times their size.
    Raises:
        MethodError: If the model has no such layer, or EAH is enabled in one of them.
    """
    found = attention_modules(model)
    modules = [module for layer, module in found.items() if layer >= start_layer]
    if not modules:
        raise MethodError(f"start_layer={start_layer}, but the model has layers 0..{max(found)}")
    if is_enabled(model):
        for layer, module in found.items():
            if layer >= start_layer and module.config._attn_implementation == ATTENTION_NAME:
                raise MethodError(
                    f"PAI changes the layers from {start_layer} on and EAH layer {layer}; one "
                    "layer can't have both: choose EAH's below, or a later start_layer"
                )
    with replaced(modules, NAME, _attention, Boost(image, alpha)):
        yield


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> Any:
    """Run the model's kernel on (R, H, Q, D), (R, N, K, D), then replace the last row."""
    state: Boost = state_of(module, NAME)
    output, weights = run_own_kernel(
        module, NAME, query, key, value, attention_mask, scaling=scaling, **kwargs
    )
    has_image = state.image.any(-1)  # (R,)
    last = _last_row(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5, state)
    output = output.clone()  # (R, Q, H, D)
    output[:, -1] = torch.where(has_image[:, None, None], last.to(output.dtype), output[:, -1])
    return output, weights


def _last_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    state: Boost,
) -> torch.Tensor:
    """Return the last query's output with raised scores, shape (R, H, D)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = torch.einsum("rhd,rhkd->rhk", query[:, :, -1], key).float() * scaling
    image = torch.zeros(len(query), key.shape[2], dtype=torch.bool, device=query.device)
    image[:, : state.image.shape[1]] = state.image
    scores = torch.where(image[:, None], scores + state.alpha * scores.abs(), scores)
    if mask is not None:
        row = mask[:, :, -1, : key.shape[2]]  # (R, 1, K)
        if row.dtype == torch.bool:
            scores = scores.masked_fill(~row, -torch.inf)
        else:
            scores = scores + row.float()
    return torch.einsum("rhk,rhkd->rhd", scores.softmax(-1).to(value.dtype), value)
