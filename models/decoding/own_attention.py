"""Attention modules that call a function of ours in a `with` block, which runs their own kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import nn
from transformers.modeling_utils import AttentionInterface

from eah.attention import ATTENTION_NAME
from eah.kernels import config_naming, run_kernel
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
        module.config = config_naming(config, name)
        setattr(module, _kept(name), (config, state))
    try:
        yield
    finally:
        for module, config in before:
            module.config = config
            delattr(module, _kept(name))


def run_own_kernel(module: Any, name: str, *tensors: Any, **kwargs: Any) -> Any:
    """Run the kernel that a module has by itself, with its own config; returns what it returns."""
    config, _ = getattr(module, _kept(name))
    return run_kernel(module, config, *tensors, **kwargs)


def state_of(module: nn.Module, name: str) -> Any:
    """Return the state that a function was put in place with."""
    return getattr(module, _kept(name))[1]


def _kept(name: str) -> str:
    """Return the attribute that keeps a module's own config and the function's state."""
    return f"_kept_for_{name}"
