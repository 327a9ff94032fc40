"""Marked tokens of a prompt (sinks, for example): found at prefill, used in all later passes.

Marks are computed from hidden states, and stored with the prompts' image masks and with cached
prefixes. Some released code reuses the marks of a process's first prompt for every later one.

Axes: B prompts, R batch rows, Q tokens of a pass, K keys, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional

from models.decoding.attention_replacement import AttentionCall, in_this_thread, unwrap_module
from models.decoding.base import MethodError
from models.decoding.early_layers import decoder_blocks
from models.prompt_images import PromptImages, current_images

Find = Callable[[torch.Tensor], torch.Tensor]
"""Maps the inputs of a layer, (R, Q, E), to marks, (R, Q) bool."""

_first: Final[WeakKeyDictionary[nn.Module, dict[Hashable, PromptImages]]] = WeakKeyDictionary()


@contextmanager
def watch_inputs(model: nn.Module, layers: Sequence[int], find: Find) -> Iterator[None]:
    """In a `with` block of this thread, mark tokens at prefill from the inputs of some layers."""
    blocks = decoder_blocks(model)

    def see(layer: int, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        states, images = args[0] if args else kwargs["hidden_states"], current_images()
        if images is not None and states.shape[1] > 1:
            images.pass_marks[layer] = find(states)

    with ExitStack() as stack:
        for layer in layers:
            hook = in_this_thread(partial(see, layer))
            handle = blocks[layer].register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def marked_keys(call: AttentionCall, images: PromptImages, title: str) -> torch.Tensor:
    """Return the marks of the keys of a call, (R, K) bool; False at an answer's tokens.

    Args:
        call: The attention call.
        images: The prompts with their marks.
        title: Name of the method, for errors.
    Raises:
        MethodError: If the prompt was not run under the method from its start.
    """
    rows, keys = len(call.query), call.key.shape[2]
    marked = images.marks.get(call.layer)
    if marked is None:
        raise MethodError(
            f"{title} needs the prompt's hidden states at layer {call.layer}, but this prompt was "
            "run outside of its `with` block; run the whole prompt inside"
        )
    marked = images.repeat_for_beams(marked.to(call.key.device), rows)
    return functional.pad(marked, (0, max(0, keys - marked.shape[1])))[:, :keys]


def first_prompt(call: AttentionCall, method: Hashable, images: PromptImages) -> PromptImages:
    """Return the first prompt that a layer received under a method in this process."""
    return _first.setdefault(unwrap_module(call.module), {}).setdefault(method, images)


def forget_first(model: nn.Module, method: Hashable) -> None:
    """Forget the first prompt that a model received under a method."""
    for module in model.modules():
        _first.get(module, {}).pop(method, None)
