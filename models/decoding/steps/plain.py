"""A copy of a model that shares its weights, without hooks and without EAH.

A decode step is the same with and without EAH, so all arms use one such copy, and reuse its
compiled and captured steps.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from torch import nn

from eah.generation import CONTINUOUS, GENERATE
from eah.kernels import own_config
from eah.state import STATE

HOOKS: Final = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


def copy_plain(model: nn.Module) -> Any:
    """Return a copy of a module tree: the same parameters and buffers, and no hooks."""
    copied = copy_without_hooks(model)
    if hasattr(model.__dict__.get("config"), "_attn_implementation"):
        copied.config = own_config(model)
    copied._modules = {
        name: None if part is None else copy_plain(part) for name, part in model._modules.items()
    }
    return copied


def copy_without_hooks(module: nn.Module) -> Any:
    """Return a shallow copy of a module, without hooks and without EAH's attributes."""
    copied: Any = copy.copy(module)
    copied._buffers = dict(module._buffers)  # some are registered again while a model runs
    for name in HOOKS:
        copied.__dict__[name] = type(module.__dict__[name])()
    for name in (STATE, GENERATE, *CONTINUOUS):
        copied.__dict__.pop(name, None)
    return copied
