"""Keys and values in buffers of fixed size, so that captured decode steps can write to them.

Axes: R batch rows, S prompt positions, N key/value heads, K keys that fit, D head size,
U prefixes, M rows of the prefix that most rows have, P positions of a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from models.prefix_cache import PrefixKeys, RestLayer

ROUND: Final = 32  # answers of about the same length share buffers


class Layout(NamedTuple):
    """Sizes that two batches must share to use the same buffers.

    Attributes:
        rows: Batch rows, R.
        length: Keys that fit, the prefix's included.
        prefix: Positions of the cached prefixes, P; 0 for none.
        members: Shape of `PrefixKeys.members`, (U, M).
        whole: Layers whose keys include the prefix.
    """

    rows: int
    length: int
    prefix: int
    members: tuple[int, ...]
    whole: tuple[int, ...]


def layout_of(cache: Any, mask: torch.Tensor, new_tokens: int) -> Layout:
    """Return the layout of a batch after its prefill.

    Args:
        cache: The prefill's cache.
        mask: 1 at the prompts' tokens, prefix and padding included, (R, S).
        new_tokens: Most tokens of an answer.
    """
    rows, prompt = mask.shape
    rest = [layer for layer in cache.layers if isinstance(layer, RestLayer)]
    length = -(-(prompt + new_tokens) // ROUND) * ROUND
    whole = tuple(i for i, layer in enumerate(cache.layers) if not isinstance(layer, RestLayer))
    if not rest:
        return Layout(rows, length, 0, (), whole)
    return Layout(rows, length, rest[0].prefix, tuple(rest[0].keys_before.members.shape), whole)


class FixedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values, (R, N, K, D), written at a slot stored on the device."""

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, slot: torch.Tensor) -> None:
        """Store the buffers and the next token's slot, shape (1,)."""
        super().__init__()
        self.keys, self.values, self._slot = keys, values, slot
        self.is_initialized = True

    def lazy_initialization(self, *_: Any) -> None:
        """Do nothing: the buffers exist already."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token's keys and values, (R, N, 1, D), and return the whole buffers."""
        self.keys.index_copy_(2, self._slot, key_states)
        self.values.index_copy_(2, self._slot, value_states)
        return self.keys, self.values

    def get_seq_length(self, *_: Any) -> int:
        """Return a length above 0; position ids and mask determine which tokens count."""
        return 1

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Return the number of keys and the first one."""
        return self.keys.shape[2], 0

    def get_max_cache_shape(self) -> int:
        """Return the number of keys that fit."""
        return int(self.keys.shape[2])

    get_max_length = get_max_cache_shape  # its name since transformers 5


class Buffers:
    """What a step reads and writes: the next token, its position, its mask, and all keys."""

    def __init__(
        self, layout: Layout, cache: Any, device: torch.device, additive: torch.dtype | None
    ) -> None:
        """Allocate buffers for a layout.

        Args:
            layout: The layout.
            cache: A prefill's cache, for shapes and dtypes.
            device: Device of tokens and masks.
            additive: Dtype of the mask if the model's kernel adds it; None for a bool mask.
        """
        rows = layout.rows
        self.layout = layout
        self.token = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.rest_slot = torch.zeros(1, dtype=torch.long, device=device)
        self.shown: bool | float = additive is None or 0.0
        hidden: bool | float = False if additive is None else torch.finfo(additive).min
        self.mask = torch.full(
            (rows, 1, 1, layout.length), hidden, dtype=additive or torch.bool, device=device
        )
        self._hidden = hidden
        self.before = PrefixKeys()
        self.before.layers = {}
        self.layers = [
            self._layer(index, layer, index in layout.whole)
            for index, layer in enumerate(cache.layers)
        ]
        self.cache = Cache(layers=list(self.layers))

    def _layer(self, index: int, layer: Any, is_whole: bool) -> FixedLayer:
        layout = self.layout
        first = 0 if is_whole else layout.prefix
        shape = (layout.rows, layer.keys.shape[1], layout.length - first)
        keys = layer.keys.new_zeros(*shape, layer.keys.shape[3])
        values = layer.values.new_zeros(*shape, layer.values.shape[3])
        if not is_whole:
            before = layer.keys_before
            self.before.members = before.members.clone()
            self.before.slots = before.slots.clone()
            own_keys, own_values = before.layers[index]
            self.before.layers[index] = torch.empty_like(own_keys), torch.empty_like(own_values)
        return FixedLayer(keys, values, self.slot if is_whole else self.rest_slot)

    def fill(self, cache: Any, attention_mask: torch.Tensor) -> None:
        """Copy the keys and values of a prefill.

        Args:
            cache: The prefill's cache, of this layout.
            attention_mask: 1 at the prompts' tokens, (R, S).
        """
        prompt = attention_mask.shape[1]
        for index, (own, layer) in enumerate(zip(self.layers, cache.layers, strict=True)):
            for mine, theirs in ((own.keys, layer.keys), (own.values, layer.values)):
                mine[:, :, : theirs.shape[2]] = theirs
                # Leftovers of an earlier batch have weight 0, but 0 * nan is nan.
                mine[:, :, theirs.shape[2] :] = 0
            if isinstance(layer, RestLayer):
                before = layer.keys_before
                for mine, theirs in zip(
                    self.before.layers[index], before.layers[index], strict=True
                ):
                    mine.copy_(theirs)
                self.before.members.copy_(before.members)
                self.before.slots.copy_(before.slots)
        self.mask.fill_(self._hidden)
        self.mask[:, 0, 0, :prompt].masked_fill_(attention_mask.bool(), self.shown)
        self.slot.fill_(prompt)
        self.rest_slot.fill_(prompt - self.layout.prefix)
        self.position.copy_(attention_mask.sum(-1, keepdim=True))

    def advance(self) -> None:
        """Advance slots and positions by one token."""
        for count in (self.slot, self.rest_slot, self.position):
            count.add_(1)

    def state(self) -> Sequence[torch.Tensor]:
        """Return the tensors that a step changes, besides keys and values."""
        return self.slot, self.rest_slot, self.position, self.mask
