"""What a method finds out about a prompt's tokens where they go into layers, for all later passes.

Kept with the prompts' image masks, and with a cached prefix. Some released code keeps what it found
in the first prompt of a process, and goes by that for every later one.

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

from models.decoding.base import MethodError
from models.decoding.early_layers import decoder_blocks
from models.decoding.own_attention import AttentionCall, in_this_thread, unwrapped
from models.prompt_images import PromptImages, said_images

Find = Callable[[torch.Tensor], torch.Tensor]
"""Returns (R, Q) bool from what goes into a layer, (R, Q, E)."""

_first: Final[WeakKeyDictionary[nn.Module, dict[Hashable, PromptImages]]] = WeakKeyDictionary()


@contextmanager
def watch_inputs(model: nn.Module, layers: Sequence[int], find: Find) -> Iterator[None]:
    """In a `with` block of this thread, look at what goes into layers where a prompt is run."""
    blocks = decoder_blocks(model)

    def see(layer: int, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        states, images = args[0] if args else kwargs["hidden_states"], said_images()
        if images is not None and states.shape[1] > 1:
            images.seen[layer] = find(states)

    with ExitStack() as stack:
        for layer in layers:
            hook = in_this_thread(partial(see, layer))
            handle = blocks[layer].register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def noted_keys(call: AttentionCall, images: PromptImages, title: str) -> torch.Tensor:
    """Return what is noted of each key of a call, (R, K) bool; False at an answer's tokens.

    Args:
        call: The attention call.
        images: The prompts that notes are of.
        title: Of the method, for errors.
    Raises:
        MethodError: If the prompt was not run under the method from its start.
    """
    rows, keys = len(call.query), call.key.shape[2]
    noted = images.notes.get(call.layer)
    if noted is None:
        raise MethodError(
            f"{title} looks at the prompt's tokens as they go into layer {call.layer}, but this "
            "prompt was run outside of its block; run it there from its start"
        )
    noted = images.repeated(noted.to(call.key.device), rows)
    return functional.pad(noted, (0, max(0, keys - noted.shape[1])))[:, :keys]


def first_prompt(call: AttentionCall, method: Hashable, images: PromptImages) -> PromptImages:
    """Return the first prompt that a layer was given under a method in this process."""
    return _first.setdefault(unwrapped(call.module), {}).setdefault(method, images)


def forget_first(model: nn.Module, method: Hashable) -> None:
    """Forget the first prompt that a model was given under a method."""
    for module in model.modules():
        _first.get(module, {}).pop(method, None)
