"""Methods that change attention in some layers and rows, and leave the choice of tokens alone.

A subclass says which layers it needs, which rows it changes, and what they become. It is run for
greedy decoding, beams and sampling alike, beside EAH where both need no layer in common, and behind
cached prefixes, because rows before the image's end stay what they were.

Why not EAH's own `apply`: that is called at image prefill alone, in EAH's layers, with a chosen
head. The function here has the same shape (query, key, value and the layer's own kernel), at every
pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import LogitsProcessorList

from eah.errors import UnsupportedModelError
from eah.find import listed_layers, patchable_layers
from eah.patch import handle_of
from models.decoding.attention_checks import PassChecks, both_change, checked_image, named_layers
from models.decoding.attention_rows import Held, Rows, mask_of_last_row
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.own_attention import AttentionCall, Output, check_kernel, holder_of, replaced
from models.generation import Decoding
from models.prompt_images import PromptImages, prompt_images

_usable: Final[WeakKeyDictionary[nn.Module, Any]] = WeakKeyDictionary()


class AttentionMethod(DecodingMethod, ABC):
    """A way to attend. Subclasses are frozen dataclasses of its settings.

    Attributes:
        names_layers: The setting that says which layers are changed.
    """

    scores_first_token = True
    names_layers: ClassVar[str] = "layers"

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

    def check_layers(self, modules: Mapping[int, Any]) -> None:
        """Refuse layers that the settings don't go with: none, by default.

        Args:
            modules: The attention modules that are changed, by layer.
        Raises:
            MethodError: Saying why.
        """
        return

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
        self._modules(model)

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
        modules = self._modules(model)
        checks = PassChecks(self.title, model, modules)
        said = nullcontext() if image is None else prompt_images(checked_image(self.title, image))

        def attend(call: AttentionCall) -> Output:
            return self._attend(call, checks.images(call))

        with (
            said,
            checks.watching(),
            replaced(list(modules.values()), attend, self.title),
            self.watching(model, list(modules)),
        ):
            yield LogitsProcessorList()

    @contextmanager
    def watching(self, model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
        """Look at what the method needs besides attention, in a `with` block: nothing."""
        yield

    def _attend(self, call: AttentionCall, images: PromptImages) -> Output:
        """Run a layer's own kernel, and put what the method makes of its rows in their place."""
        if not self.is_causal and call.offset == 0:
            call = call.changed(mask=mask_of_last_row(call))
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

    def _modules(self, model: nn.Module) -> dict[int, Any]:
        """Return the attention modules that are changed; errors as in `check_model`."""
        if self.is_off:
            return {}
        name = type(model).__name__
        setting = f"{type(self).__name__.lower()}@{self.names_layers}=..."
        if model not in _usable:  # before anything is in its place
            try:
                _usable[model] = patchable_layers(model)
            except UnsupportedModelError as error:
                raise MethodError(f"{self.title}: {error}") from error
        usable, reasons = _usable[model]
        handle = handle_of(model)
        shared = () if handle is None else handle.layers
        known = sorted({*usable, *reasons})
        held = list(self.held_layers(known, shared))
        if not held:
            besides = f" besides EAH's ({listed_layers(shared)})" if shared else ""
            raise MethodError(
                f"{self.title} changes no layer of {name}{besides}; choose others: {setting}"
            )
        if missing := [layer for layer in held if layer not in known]:
            raise MethodError(
                f"{self.title} changes {named_layers(held)}, but {name} has no layer "
                f"{missing[0]} (it has {listed_layers(known)}); name others: {setting}"
            )
        if both := set(held) & set(shared):
            raise MethodError(both_change(self.title, "EAH", both))
        for layer in held:
            if layer in reasons:
                raise MethodError(f"{self.title} in layer {layer} of {name}: {reasons[layer]}")
            check_kernel(usable[layer])
        modules = {layer: usable[layer] for layer in held}
        holders = {layer: holder_of(module) for layer, module in modules.items()}
        for other in filter(None, holders.values()):
            both = {layer for layer, holder in holders.items() if holder == other}
            raise MethodError(both_change(self.title, other, both))
        self.check_layers(modules)
        return modules
