"""Attention sinks: tokens whose hidden state is very large in a few dimensions of a language model.

They attract attention regardless of their content. The dimensions are a property of the language
model (arXiv 2503.03321).

Axes: R batch rows, Q tokens of a pass, E width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from models.decoding.base import MethodError

EPSILON: Final = 1e-6


def find_sinks(states: torch.Tensor, dims: Sequence[int], tau: float) -> torch.Tensor:
    """Return True at sinks, (R, Q).

    Args:
        states: Inputs of a layer, (R, Q, E).
        dims: Dimensions in which sinks are large.
        tau: Smallest value of a sink, in units of the state's root mean square.
    """
    large = states[..., list(dims)].float().abs().amax(-1)
    return large * torch.rsqrt(states.float().square().mean(-1) + EPSILON) > tau


def check_sinks(dims: Sequence[int], tau: float, modules: Mapping[int, Any]) -> None:
    """Refuse dimensions or a threshold with which no token can be a sink.

    Args:
        dims: As in `find_sinks`.
        tau: As in `find_sinks`.
        modules: The model's attention modules, by layer.
    Raises:
        MethodError: With the reason.
    """
    if not dims:
        raise MethodError(
            "VAR needs the dimensions in which this language model's sinks are large; its authors "
            "published them only for LLaVA-1.5 7B and 13B; name them: var@sink_dims=1415+2533"
        )
    width = min(int(module.config.hidden_size) for module in modules.values())
    if max(dims) >= width:
        raise MethodError(
            f"VAR: sink_dims has {max(dims)}, but hidden states of this model have dimensions "
            f"0..{width - 1}; choose others"
        )
    if tau >= math.sqrt(width):
        raise MethodError(
            f"VAR: tau={tau:g}, but in hidden states of {width} dimensions no value is larger than "
            f"{math.sqrt(width):.3g} times their root mean square: choose a smaller tau"
        )
