"""Checks of every forward pass under a method that changes attention.

Such a method depends on the positions of image tokens among a layer's keys. They are unknown if a
cache drops tokens or is preallocated, or if the mask of image tokens belongs to another prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import nn
from transformers import Cache

from eah.find import listed_layers
from eah.kernel_mask import UNSUPPORTED_ARGUMENTS
from eah.patch import handle_of
from models.decoding.attention_replacement import AttentionCall, in_this_thread
from models.decoding.base import MethodError
from models.decoding.early_layers import decoder_of
from models.prompt_images import PromptImages, current_images

RULE: Final = "one layer can't have both"


class PassChecks:
    """Checks of a method in some layers of a model.

    Raises:
        MethodError: At a pass that the method does not support.
    """

    def __init__(self, title: str, model: nn.Module, layers: Collection[int]) -> None:
        """Store the method's title, the model, and the changed layers."""
        self._title, self._model, self._layers = title, model, layers
        self._tokens: int | None = None  # so far, prompt and answer

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Check the forward passes of this thread in a `with` block."""
        if not self._layers:
            yield
            return
        with ExitStack() as stack:
            for module, see in (
                (self._model, self._check_maps),
                (decoder_of(self._model), self._check_inputs),
            ):
                hook = module.register_forward_pre_hook(in_this_thread(see), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def images(self, call: AttentionCall) -> PromptImages:
        """Return the image tokens of a call's prompts, after all checks."""
        images, rows, queries = current_images(), len(call.query), call.query.shape[2]
        keys = call.key.shape[2]
        if images is None or rows % len(images.mask):
            raise MethodError(
                f"{self._title} has no mask of the image tokens of {rows} prompts; pass it to "
                "`applied`, or use a wrapper of `models`"
            )
        self._check_arguments(call)
        tokens, window = self._tokens or keys, call.kwargs.get("sliding_window")
        if window is not None and tokens > window:
            keys = min(keys, window)
        if keys != tokens:
            what = "a sliding window" if keys < tokens else "a cache of a fixed size"
            raise MethodError(
                f"{self._title}: layer {call.layer} has {keys} keys for {tokens} tokens "
                f"({what}), so the positions of the image tokens are unknown; use a dynamic "
                "cache, other layers or shorter answers"
            )
        is_prefix = call.offset == 0 and queries == images.prefix
        if not is_prefix and (keys < images.length or (call.offset == 0 and keys > images.length)):
            raise MethodError(
                f"{self._title}: the mask of image tokens has {images.length} positions, but the "
                f"prompt begins with a pass of {queries}; pass a mask with the prompt's padding "
                "and without its answer, and run prompts whole and with a cache (no chunked "
                "prefill, assisted generation or guidance)"
            )
        return images

    def _check_maps(self, model: nn.Module, _: Any, kwargs: dict[str, Any]) -> None:
        """Refuse `output_attentions`: full attention maps are never computed."""
        own = getattr(getattr(model, "config", None), "output_attentions", False)
        if kwargs.get("output_attentions", own):
            raise MethodError(
                f"{self._title} computes only the rows that it changes, not attention maps; leave "
                "output_attentions out"
            )

    def _check_inputs(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Check the arguments of the decoder's `forward`."""
        handle = handle_of(self._model)
        if handle is not None and (both := set(handle.layers) & set(self._layers)):
            raise MethodError(conflict_message(self._title, "EAH", both))
        given = kwargs.get("inputs_embeds")
        if given is None:
            given = kwargs.get("input_ids", args[0] if args else None)
        mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
        self._tokens = None
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:
            self._tokens = mask.shape[1]
            if isinstance(given, torch.Tensor) and given.shape[1] > 1 and not mask[:, -1].all():
                raise MethodError(
                    f"{self._title}: some prompts are padded on the right, so their last token is "
                    "not at the last position; pad them on the left"
                )
        elif isinstance(given, torch.Tensor):
            cached = int(cache.get_seq_length()) if isinstance(cache, Cache) else 0
            self._tokens = given.shape[1] + cached
        if isinstance(given, torch.Tensor) and given.shape[1] > 1:
            self._check_beams(given)

    def _check_beams(self, given: torch.Tensor) -> None:
        """Refuse a mask of image tokens with fewer rows than prompts."""
        images = current_images()
        if images is None or len(given) in (0, len(images.mask)) or len(given) % len(images.mask):
            return
        beams = given.reshape(len(images.mask), -1, *given.shape[1:])
        if not torch.equal(beams[:, :1].expand_as(beams), beams):
            raise MethodError(
                f"{self._title}: the mask of image tokens has {len(images.mask)} rows for "
                f"{len(given)} prompts; pass one with a row for each of them"
            )

    def _check_arguments(self, call: AttentionCall) -> None:
        """Refuse attention that is not softmax(Q K^T * scaling + mask) V."""
        for name in UNSUPPORTED_ARGUMENTS:
            if call.kwargs.get(name) is not None:
                raise MethodError(
                    f"{self._title}: layer {call.layer} passes {name!r} to its attention kernel, "
                    "but the method supports plain softmax attention only; choose other layers or "
                    "another model"
                )


def conflict_message(title: str, other: str, layers: Collection[int]) -> str:
    """Return the error message for two methods that change the same layers."""
    return (
        f"{title} and {other} both change {format_layers(layers)}; {RULE}: choose other layers for "
        f"{title} or for {other}"
    )


def format_layers(layers: Collection[int]) -> str:
    """Return layers as text, such as "layer 2" or "layers 5..18"."""
    return f"layer{'s' if len(layers) > 1 else ''} {listed_layers(layers)}"


def check_image_mask(title: str, image: torch.Tensor) -> torch.Tensor:
    """Return a mask of image tokens, (B, S) bool, after checking it.

    Raises:
        MethodError: If it is not such a mask, or has no image token.
    """
    is_mask = isinstance(image, torch.Tensor) and image.dtype == torch.bool and image.dim() == 2
    if not is_mask or not image.numel():
        found = type(image).__name__
        if isinstance(image, torch.Tensor):
            found = f"{image.dtype} of shape {tuple(image.shape)}"
        raise MethodError(
            f"{title}: the mask of image tokens is {found}; pass a bool tensor with a row for each "
            "prompt and a column for each position"
        )
    if not image.any():
        raise MethodError(
            f"{title}: the mask of image tokens is False everywhere; pass one that is True at them "
            "(is it the right id?)"
        )
    return image
