"""Attention modules that call a function of ours, which hands over to the model's own kernel.

A module gets a copy of its config that names the function (`AttentionInterface`), and gets its own
config back while its kernel runs and at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from eah.attention import ATTENTION_NAME, eager_function
from models.decoding.base import MethodError

# EAH's function hands over to one of the others, which eah.enable has checked.
KERNELS: Final = ("eager", "sdpa", ATTENTION_NAME)


@contextmanager
def replaced(
    modules: Sequence[nn.Module], name: str, function: Callable[..., Any], state: object
) -> Iterator[None]:
    """Let modules call a function in a `with` block.

    Args:
        modules: Attention modules.
        name: What configs call the function.
        function: Takes what transformers' attention functions take.
        state: What the function needs to know; `state_of` gives it back.
    Raises:
        MethodError: If a module's kernel takes no masks of its own making.
    """
    for module in modules:
        kernel = str(module.config._attn_implementation)  # type: ignore[union-attr]  # a config
        if kernel not in KERNELS:
            raise MethodError(
                f"attn_implementation={kernel!r}, but this method works with "
                f"{' and '.join(map(repr, ('eager', 'sdpa')))}: load the model with one of them"
            )
    AttentionInterface.register(name, function)
    before: list[tuple[Any, Any]] = [(module, module.config) for module in modules]
    for module, config in before:
        module.config = copy.copy(config)
        module.config._attn_implementation = name
        setattr(module, _kept(name), (config, state))
    try:
        yield
    finally:
        for module, config in before:
            module.config = config
            delattr(module, _kept(name))


def run_own_kernel(module: Any, name: str, *tensors: Any, **kwargs: Any) -> Any:
    """Run the kernel that a module has by itself, with its own config; returns what it returns."""
    ours, (own, _) = module.config, getattr(module, _kept(name))
    kernel = str(own._attn_implementation)
    function: Callable[..., Any] = (
        eager_function(type(module)) if kernel == "eager" else ALL_ATTENTION_FUNCTIONS[kernel]
    )
    module.config = own
    try:
        return function(module, *tensors, **kwargs)
    finally:
        module.config = ours


def state_of(module: nn.Module, name: str) -> Any:
    """Return the state that a function was put in place with."""
    return getattr(module, _kept(name))[1]


def _kept(name: str) -> str:
    """Return the attribute that keeps a module's own config and the function's state."""
    return f"_kept_for_{name}"
