"""Gradient checkpointing runs a layer again in the backward pass, maybe in another thread.

The forward pass that the layer belonged to is over by then, so it is carried along with the
function that the checkpoint runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import torch
from torch import nn

FUNCTION: Final = "_gradient_checkpointing_func"


class Carry:
    """transformers' checkpoint function of a layer, whose second run sees the pass of the first."""

    def __init__(self, checkpoint: Callable[..., Any], current: ContextVar[Any]) -> None:
        """Remember what to call, and where the pass under way is kept."""
        self.checkpoint, self.current = checkpoint, current

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoint a function."""
        run = partial(_run_within, self.current, self.current.get(), function)
        return self.checkpoint(run, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles get transformers' own function; the next pass wraps it again."""
        return _itself, (self.checkpoint,)


def carry_passes(model: nn.Module, current: ContextVar[Any]) -> None:
    """Let the checkpointed layers of a model that is trained see the pass under way."""
    if model.training and torch.is_grad_enabled():
        for module in model.modules():
            found = module.__dict__.get(FUNCTION)
            if found is not None and not isinstance(found, Carry):
                module.__dict__[FUNCTION] = Carry(found, current)


def restore_checkpointing(model: nn.Module) -> None:
    """Undo `carry_passes`."""
    for module in model.modules():
        found = module.__dict__.get(FUNCTION)
        if isinstance(found, Carry):
            module.__dict__[FUNCTION] = found.checkpoint


def _run_within(
    current: ContextVar[Any],
    under_way: Any,
    function: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    token = current.set(under_way)
    try:
        return function(*args, **kwargs)
    finally:
        current.reset(token)


def _itself(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    return checkpoint
