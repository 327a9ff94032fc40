"""Methods that change attention in some layers and rows, and leave the choice of tokens alone.

A subclass says which layers it needs, which rows it changes, and what they become. It is run for
greedy decoding, beams and sampling alike, beside EAH where both need no layer in common, and behind
cached prefixes, because rows before the image's end stay what they were.

Why not EAH's own `apply`: that is called at image prefill alone, in EAH's layers, with a chosen
head. The function here has the same shape (query, key, value and the layer's own kernel), at every
pass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import LogitsProcessorList

from eah.find import listed_layers, patchable_layers
from eah.kernel_mask import UNSUPPORTED_ARGUMENTS
from eah.patch import handle_of
from models.decoding.attention_rows import Held, Rows
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.own_attention import (
    AttentionCall,
    Output,
    in_this_thread,
    replaced,
)
from models.generation import Decoding
from models.prompt_images import PromptImages, prompt_images, said_images

_usable: Final[WeakKeyDictionary[nn.Module, Any]] = WeakKeyDictionary()


class AttentionMethod(DecodingMethod):
    """A way to attend. Subclasses are frozen dataclasses of its settings."""

    scores_first_token = True

    @property
    def shares_prefix(self) -> bool:
        """Whether rows before the image's end stay what they were, which a prefix consists of."""
        return self.is_causal and self.rows is not Held.ALL

    @property
    def is_causal(self) -> bool:
        """Whether rows of a prompt see what is before them only, in the layers that are changed."""
        return True

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return False

    @property
    @abstractmethod
    def rows(self) -> Held:
        """Rows that are changed."""

    @abstractmethod
    def held_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers that are changed.

        Args:
            layers: Those of the model.
            shared: Those in which EAH is at work.
        Raises:
            MethodError: If the settings don't say it.
        """

    @abstractmethod
    def edit(self, rows: Rows) -> torch.Tensor:
        """Return what rows of a layer become, shape (R, n, H, D)."""

    def check(self, decoding: Decoding) -> None:
        """Refuse no way to choose tokens."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that lacks the method's layers, or has EAH or another kernel in them.

        Raises:
            MethodError: Naming the layers.
        """
        self.modules(model)

    @contextmanager
    def applied(
        self, model: nn.Module, image: torch.Tensor | None = None
    ) -> Iterator[LogitsProcessorList]:
        """Change a model's attention in a `with` block of this thread.

        Args:
            model: A transformers model with a decoder that EAH knows.
            image: True at the image tokens of the prompts in the block, (B, S) with their padding;
                beams repeat its rows. None if `models.prompt_images` says it.
        Returns:
            What changes the scores of a token: nothing.
        Raises:
            MethodError: As `check_model`; and at a pass whose image tokens are not known.
        """
        self.check_model(model)
        modules = self.modules(model)
        length = _Length()
        hook = model.register_forward_pre_hook(in_this_thread(length.see), with_kwargs=True)

        def attend(call: AttentionCall) -> Output:
            _check_call(self.title, call, length)
            return self.attend(call)

        try:
            with (
                prompt_images(image) if image is not None else nullcontext(),
                replaced(list(modules.values()), attend),
                self.watching(model, list(modules)),
            ):
                yield LogitsProcessorList()
        finally:
            hook.remove()

    @contextmanager
    def watching(self, model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
        """Look at what the method needs besides attention, in a `with` block: nothing."""
        yield

    def attend(self, call: AttentionCall) -> Output:
        """Run a layer's own kernel, and put what the method makes of its rows in their place."""
        images = said_images()
        if images is None or len(call.query) % len(images.mask):
            raise MethodError(
                f"{self.title} is not told where the image tokens of {len(call.query)} prompts "
                "are; pass their mask to `applied`, or use a wrapper of `models`"
            )
        if not self.is_causal and call.offset == 0:
            call = call.changed(mask=_mask_of_last_row(call))
        rows = Rows.of(call, images, self.rows_of(call, images))
        if not rows.count:
            return call.run()
        changed = self.edit(rows)
        if rows.are_all:
            return changed.to(call.query.dtype).contiguous(), None
        output = call.run()[0].clone()  # (R, Q, H, D)
        own = output[:, -rows.count :]
        output[:, -rows.count :] = torch.where(
            rows.changed[..., None, None], changed.to(own.dtype), own
        )
        return output, None

    def rows_of(self, call: AttentionCall, images: PromptImages) -> Held:
        """Return the rows that are changed in a call."""
        return self.rows

    def modules(self, model: nn.Module) -> dict[int, Any]:
        """Return the attention modules that are changed; errors as in `check_model`."""
        if self.is_off:
            return {}
        if model not in _usable:  # before anything is in its place
            _usable[model] = patchable_layers(model)
        usable, reasons = _usable[model]
        handle = handle_of(model)
        shared = () if handle is None else handle.layers
        known = sorted({*usable, *reasons})
        held = list(self.held_layers(known, shared))
        name, arm = type(model).__name__, type(self).__name__.lower()
        if missing := [layer for layer in held if layer not in known]:
            raise MethodError(
                f"{self.title} changes layers {listed_layers(held)}, but {name} has no layer "
                f"{missing[0]} (it has {listed_layers(known)}); name others: {arm}@layers=..."
            )
        if both := sorted(set(held) & set(shared)):
            raise MethodError(
                f"{self.title} and EAH both change layer {listed_layers(both)}; one layer can't "
                f"have both: choose EAH's outside of {listed_layers(held)}, or other layers for "
                f"{self.title}"
            )
        for layer in held:
            if layer in reasons:
                raise MethodError(f"{self.title} in layer {layer} of {name}: {reasons[layer]}")
        return {layer: usable[layer] for layer in held}


class _Length:
    """Tokens so far, prompt and answer, as the mask of a pass has them."""

    tokens: int | None = None

    def see(self, _: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        """Look at the arguments of a model's `forward`."""
        mask = kwargs.get("attention_mask")
        two = isinstance(mask, torch.Tensor) and mask.dim() == 2
        self.tokens = int(mask.shape[1]) if two else None  # type: ignore[union-attr]


def _check_call(title: str, call: AttentionCall, length: _Length) -> None:
    """Refuse attention that is not softmax(Q K^T * scaling + mask) V over all tokens so far.

    Raises:
        MethodError: Naming the layer.
    """
    for name in UNSUPPORTED_ARGUMENTS:
        if call.kwargs.get(name) is not None:
            raise MethodError(
                f"{title}: layer {call.layer} passes {name!r} to its attention kernel, but the "
                "method knows plain softmax attention only; choose other layers or another model"
            )
    keys = call.key.shape[2]
    if length.tokens is not None and keys != length.tokens:
        raise MethodError(
            f"{title}: layer {call.layer} has {keys} keys for {length.tokens} tokens (a sliding "
            "window, or image tokens that the model adds), so that the places of the image tokens "
            "are not known; choose other layers or another model"
        )


def _mask_of_last_row(call: AttentionCall) -> torch.Tensor:
    """Return a mask that gives every row of a prompt what its last row has, (R, 1, Q, K)."""
    rows, _, queries, _ = call.query.shape
    keys = call.key.shape[2]
    if isinstance(call.mask, torch.Tensor):
        return call.mask[:, :, -1:, :keys].expand(-1, -1, queries, -1)
    return call.query.new_zeros(rows, 1, queries, keys)
