"""Methods that change attention in some layers and rows, and leave the choice of tokens alone.

A subclass defines which layers and rows it changes, and how. It works with greedy decoding, beams
and sampling, together with EAH in other layers, and with cached prefixes, because rows before the
image's end stay unchanged.

EAH's own `apply` is not used: it is called only at image prefill, in EAH's layers, with a chosen
head. The function here gets the same inputs (query, key, value and the layer's own kernel) at every
pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import LogitsProcessorList

from eah.errors import UnsupportedModelError
from eah.find import listed_layers, patchable_layers
from eah.patch import handle_of
from models.decoding.attention_checks import (
    PassChecks,
    check_image_mask,
    conflict_message,
    format_layers,
)
from models.decoding.attention_replacement import (
    AttentionCall,
    Output,
    check_kernel,
    replace_attention,
    replacing_method,
)
from models.decoding.attention_rows import ChangedRows, Rows, mask_of_last_row
from models.decoding.base import DecodingMethod, MethodError
from models.generation import Decoding
from models.prompt_images import PromptImages, prompt_images

_usable: Final[WeakKeyDictionary[nn.Module, Any]] = WeakKeyDictionary()


class AttentionMethod(DecodingMethod, ABC):
    """A method that changes attention. Subclasses are frozen dataclasses of its settings.

    Attributes:
        layer_setting: The setting that selects the layers.
    """

    scores_first_token = True
    layer_setting: ClassVar[str] = "layers"

    @property
    def can_use_cached_prefix(self) -> bool:
        """Whether the rows of the prefix, before the image's end, stay unchanged."""
        return self.is_causal and self.rows is not ChangedRows.ALL

    @property
    def is_causal(self) -> bool:
        """Whether attention in the changed layers stays causal within the prompt."""
        return True

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return False

    @property
    @abstractmethod
    def rows(self) -> ChangedRows:
        """Rows that are changed."""

    @abstractmethod
    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers to change.

        Args:
            layers: All layers of the model.
            shared: Layers in which EAH is enabled.
        Raises:
            MethodError: If the settings do not determine them.
        """

    def check_layers(self, modules: Mapping[int, Any]) -> None:
        """Refuse layers that do not fit the settings: none by default.

        Args:
            modules: The changed attention modules, by layer.
        Raises:
            MethodError: With the reason.
        """
        return

    @abstractmethod
    def edit(self, rows: Rows) -> torch.Tensor:
        """Return the new attention output of rows, shape (R, n, H, D)."""

    def check(self, decoding: Decoding) -> None:
        """Accept any decoding."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model without the method's layers, or with EAH or another kernel in them.

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
            image: True at the image tokens of the prompts in the block, (B, S) with padding; rows
                are repeated for beams. None if `models.prompt_images` sets it.
        Returns:
            Processors of the next token's scores: none.
        Raises:
            MethodError: As `check_model`; and at a pass whose image tokens are unknown.
        """
        modules = self._modules(model)
        checks = PassChecks(self.title, model, modules)
        block = nullcontext() if image is None else self._image_block(image)

        def attend(call: AttentionCall) -> Output:
            return self._attend(call, checks.images(call))

        with (
            block,
            checks.watch(),
            replace_attention(list(modules.values()), attend, self.title),
            self.watch(model, list(modules)),
        ):
            yield LogitsProcessorList()

    def _image_block(self, image: torch.Tensor) -> AbstractContextManager[Any]:
        return prompt_images(check_image_mask(self.title, image))

    @contextmanager
    def watch(self, model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
        """In a `with` block, record what the method needs besides attention: nothing by default."""
        yield

    def _attend(self, call: AttentionCall, images: PromptImages) -> Output:
        """Run a layer's own kernel, and replace the rows that the method changes."""
        if not self.is_causal and call.offset == 0:
            call = call.replace(mask=mask_of_last_row(call))
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

    def rows_of(self, call: AttentionCall, images: PromptImages) -> ChangedRows:
        """Return the rows to change in a call."""
        return self.rows

    def _modules(self, model: nn.Module) -> dict[int, Any]:
        """Return the attention modules to change; errors as in `check_model`."""
        if self.is_off:
            return {}
        name = type(model).__name__
        setting = f"{type(self).__name__.lower()}@{self.layer_setting}=..."
        if model not in _usable:  # before any attention is replaced
            try:
                _usable[model] = patchable_layers(model)
            except UnsupportedModelError as error:
                raise MethodError(f"{self.title}: {error}") from error
        usable, reasons = _usable[model]
        handle = handle_of(model)
        shared = () if handle is None else handle.layers
        known = sorted({*usable, *reasons})
        changed = list(self.changed_layers(known, shared))
        if not changed:
            besides = f" besides EAH's ({listed_layers(shared)})" if shared else ""
            raise MethodError(
                f"{self.title} changes no layer of {name}{besides}; choose other layers: {setting}"
            )
        if missing := [layer for layer in changed if layer not in known]:
            raise MethodError(
                f"{self.title} changes {format_layers(changed)}, but {name} has no layer "
                f"{missing[0]} (it has {listed_layers(known)}); name others: {setting}"
            )
        if both := set(changed) & set(shared):
            raise MethodError(conflict_message(self.title, "EAH", both))
        for layer in changed:
            if layer in reasons:
                raise MethodError(f"{self.title} in layer {layer} of {name}: {reasons[layer]}")
            check_kernel(usable[layer])
        modules = {layer: usable[layer] for layer in changed}
        methods = {layer: replacing_method(module) for layer, module in modules.items()}
        for other in filter(None, methods.values()):
            both = {layer for layer, method in methods.items() if method == other}
            raise MethodError(conflict_message(self.title, other, both))
        self.check_layers(modules)
        return modules
