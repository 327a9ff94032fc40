"""Replace the attention of modules, in a `with` block, with functions that can run their kernel.

A block applies only to the thread (more exactly: the context) that enters it. Another thread that
calls the same modules at the same time runs their own kernel, or the functions of its blocks.

Axes: R batch rows, H heads, N key heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.modeling_utils import AttentionInterface

from eah.attention import ATTENTION_NAME
from eah.kernels import ModuleView, config_naming, original_config, own_config, run_kernel
from eah.scoped_values import ScopedValues
from models.decoding.base import MethodError

NAME: Final = "in_block"
KERNELS: Final = ("eager", "sdpa")
Output = tuple[torch.Tensor, torch.Tensor | None]
"""Output of attention, (R, Q, H, D), and its weights, (R, H, Q, K), if the kernel returns any."""


class AttentionCall:
    """One call of an attention module.

    Attributes:
        module: The attention module.
        query: Shape (R, H, Q, D).
        key: Shape (R, N, K, D), cached keys included.
        value: Shape (R, N, K, D).
        mask: The mask that the model passes to the module's own kernel.
        scaling: Factor on the scores.
        kwargs: Further arguments that transformers passes to attention functions.
    """

    def __init__(
        self,
        module: Any,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        mask: Any,
        kwargs: dict[str, Any],
        rest: Sequence[_Frame] = (),
    ) -> None:
        """Store what transformers passes, and the functions of the outer blocks."""
        self.module, self.mask, self.kwargs = module, mask, kwargs
        self.query, self.key, self.value = tensors
        self._rest = rest
        self._own: Output | None = None

    @property
    def layer(self) -> int:
        """Layer index."""
        return int(self.module.layer_idx)

    @property
    def scaling(self) -> float:
        """Factor on the scores."""
        given = self.kwargs.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if given is None else given)

    @property
    def offset(self) -> int:
        """Position of the first query among the keys: the number of cached tokens."""
        return int(self.key.shape[2] - self.query.shape[2])

    def replace(self, *, key: torch.Tensor | None = None, mask: Any = None) -> AttentionCall:
        """Return the same call with other keys, (R, N, K, D), or another mask."""
        tensors = (self.query, self.key if key is None else key, self.value)
        mask = self.mask if mask is None else mask
        return AttentionCall(self.module, tensors, mask, self.kwargs, self._rest)

    def run(self) -> Output:
        """Return the output of the outer blocks' functions or the module's kernel; runs once."""
        if self._own is None:
            if self._rest:
                *rest, frame = self._rest
                tensors = (self.query, self.key, self.value)
                self._own = frame.function(
                    AttentionCall(self.module, tensors, self.mask, self.kwargs, rest)
                )
            else:
                self._own = run_kernel(
                    self.module,
                    _original_config(self.module.config),
                    self.query,
                    self.key,
                    self.value,
                    self.mask,
                    **self.kwargs,
                )
        return self._own


Function = Callable[[AttentionCall], Output]


class _Frame(NamedTuple):
    modules: frozenset[int]  # by id
    function: Function
    holder: str


_frames: Final[ScopedValues[_Frame]] = ScopedValues("attention_frames")
_lock: Final = threading.Lock()
# Number of open blocks of all threads, by module.
_installed: Final[WeakKeyDictionary[nn.Module, int]] = WeakKeyDictionary()


@contextmanager
def replace_attention(
    modules: Sequence[nn.Module], function: Function, holder: str = ""
) -> Iterator[None]:
    """In a `with` block, let modules call a function; that of the innermost block runs first.

    Args:
        modules: Attention modules.
        function: Maps a call to the output of an attention function.
        holder: The method that changes their attention; "" for none.
    Raises:
        MethodError: If a module's kernel does not take explicit masks.
    """
    for module in modules:
        check_kernel(module)
    AttentionInterface.register(NAME, _dispatch)
    with _lock:
        for module in modules:
            _installed[module] = _installed.get(module, 0) + 1
            if not _is_named(module):
                module.config = config_naming(module.config, NAME)
    try:
        with _frames.scope(_Frame(frozenset(map(id, modules)), function, holder)):
            yield
    finally:
        with _lock:
            for module in modules:
                _installed[module] -= 1
                # If EAH was enabled on top in the meantime, the name stays and does nothing.
                if not _installed[module] and _is_named(module):
                    module.config = original_config(module.config)
                    del _installed[module]


def check_kernel(module: Any) -> None:
    """Refuse a module whose kernel does not take explicit masks.

    Raises:
        MethodError: Naming the kernel and the supported ones.
    """
    kernel = kernel_name(module)
    if kernel not in KERNELS:
        raise MethodError(
            f"attn_implementation={kernel!r}, but this method works with "
            f"{' and '.join(map(repr, KERNELS))}: load the model with one of them"
        )


def kernel_name(module: Any) -> str:
    """Return the name of a module's original kernel, without EAH and our functions."""
    return str(own_config(module)._attn_implementation)


def unwrap_module(module: Any) -> Any:
    """Return the attention module itself; kernels may get a view of it."""
    while isinstance(module, ModuleView):
        module = module.module
    return module


def is_wrapped_by_eah(module: Any) -> bool:
    """Return whether EAH wraps a module's kernel."""
    return bool(_original_config(module.config)._attn_implementation == ATTENTION_NAME)


def is_replaced(module: nn.Module) -> bool:
    """Return whether a block of this thread replaces a module's attention."""
    return any(id(module) in frame.modules for frame in _frames.values())


def replacing_method(module: nn.Module) -> str | None:
    """Return the method that changes a module's attention in a block of this thread."""
    named = [f.holder for f in _frames.values() if f.holder and id(module) in f.modules]
    return named[-1] if named else None


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that does nothing in other threads, which may use the model as well."""
    mine = threading.get_ident()

    @wraps(hook)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == mine else None

    return guarded


def _is_named(module: Any) -> bool:
    return bool(module.config._attn_implementation == NAME)


def _original_config(config: Any) -> Any:
    """Return the module's own config, even if another thread has just restored it."""
    return original_config(config) if config._attn_implementation == NAME else config


def _dispatch(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> Output:
    """Run the functions of this thread's blocks, then the module's kernel."""
    mine = id(unwrap_module(module))
    frames = [frame for frame in _frames.values() if mine in frame.modules]
    return AttentionCall(module, (query, key, value), attention_mask, kwargs, frames).run()
