"""One prefill for prompts that begin alike: the same system message and the same picture.

What follows the picture is a few tokens of several hundred. So keys and values up to the picture's
end are computed once per picture and method, and only the rest is run for each question.

Under EAH the head depends on a few rows of the question too. The first question about a picture is
run whole, and the others go on behind its prefix; where one of them finds another densest head, its
answer is taken from a prefix that was computed with that head.

Axes: B prompts, P positions of the prefix, S positions of whole prompts, N key/value heads, D head
size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import DynamicCache

from eah.context import sharing_prefix
from eah.find import attention_modules
from eah.method import Columns
from eah.patch import handle_of
from eah.prefix import SharedPrefix
from models.cache import GrowingLayer
from models.decoding.own_attention import replaced
from models.generation import EncodedPrompts
from models.prefill import computed, heads_of
from models.prefix_store import CachedPrefix, Heads, Sharing
from models.shared_keys import KERNELS, NAME, RestLayer, SharedKeys, attention

# A GPU is busy with this many, and their activations stay small beside the weights. A CPU is busy
# with one prompt.
PREFILL_TOKENS: Final = {"cuda": 8192}


class _OtherHeads(Exception):
    """Some prompts found other heads than their prefixes were computed with."""

    def __init__(self, found: dict[int, Heads]) -> None:
        super().__init__(found)
        self.found = found


def generate_sharing(
    model: Any, prompts: EncodedPrompts, sharing: Sharing, generate: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Generate with the prefixes of the prompts from a store.

    Args:
        model: The language model that `generate` runs.
        prompts: What `generate` passes to it, padded behind the prefix (`EncodedPrompts.prefix`).
        sharing: The prompts' pictures, and the store.
        generate: Runs the prompts from their start; they may be repeated for beams.
    Returns:
        What `generate` returns.
    """
    batch = _Batch(model, prompts, sharing)
    batch.assign()
    while True:
        try:
            with batch.spliced():
                return generate()
        except _OtherHeads as other:
            sharing.store.passes += 1
            batch.reassign(other.found)


class _Batch:
    """Prompts, and the prefix that each goes on behind."""

    def __init__(self, model: Any, prompts: EncodedPrompts, sharing: Sharing) -> None:
        self.model = model
        self.prompts = prompts
        self.pictures, self.store = sharing
        self.prefixes: dict[int, CachedPrefix] = {}
        self.repaired: set[int] = set()
        self.shared = SharedKeys()
        # Layers that do without keys of their own for each row. EAH's count on all keys, and other
        # kernels may see more than tensors.
        self.sharing: dict[int, Any] = {}
        self.whole: set[int] = set()  # prompts whose prefix is their own
        self.store.prompts += len(self.pictures)

    def assign(self) -> None:
        """Give every prompt a prefix of its picture; compute those that are not there."""
        first: dict[Hashable, int] = {}
        for row, picture in enumerate(self.pictures):
            if not self.store.of(picture):
                first.setdefault(picture, row)
        self._prefill(list(first.values()))
        for row, picture in enumerate(self.pictures):
            self.prefixes.setdefault(row, self.store.of(picture)[-1])

    def reassign(self, found: dict[int, Heads]) -> None:
        """Give prompts that found other heads a prefix of these; compute those that are not there.

        With several target layers, heads that are found behind a wrong one may be wrong as well: a
        prompt that comes here a second time is run whole.
        """
        alone: list[int] = []
        first: dict[tuple[Hashable, tuple[tuple[int, int], ...]], int] = {}
        waiting = []
        for row, heads in found.items():
            picture = self.pictures[row]
            fitting = [prefix for prefix in self.store.of(picture) if prefix.heads == heads]
            if row in self.repaired:
                alone.append(row)
            elif fitting:
                self.prefixes[row] = fitting[0]
            else:
                wanted = (picture, tuple(heads.items()))
                first.setdefault(wanted, row)
                waiting.append((row, wanted))
            self.repaired.add(row)
        self._prefill([*alone, *first.values()])
        for row, wanted in waiting:
            self.prefixes[row] = self.prefixes[first[wanted]]

    @contextmanager
    def spliced(self) -> Iterator[None]:
        """In a `with` block, run what follows the prefix only, where the model is given prompts."""
        handle = handle_of(self.model)
        rows = range(len(self.pictures))
        sums = {
            layer: Columns(
                *map(torch.cat, zip(*(self.prefixes[row].sums[layer] for row in rows), strict=True))
            )
            for layer in (handle.layers if handle else ())
        }
        hooks = [
            # Before EAH's own, which is to see what is left of the prompts.
            self.model.register_forward_pre_hook(self._splice, with_kwargs=True, prepend=True),
            self.model.register_forward_hook(self._compare, with_kwargs=True),
        ]
        self.shared = SharedKeys()
        self.sharing = {
            layer: module
            for layer, module in attention_modules(self.model).items()
            if module.config._attn_implementation in KERNELS
        }
        try:
            with (
                sharing_prefix(self.model, SharedPrefix(self.prompts.prefix, sums)),
                replaced(list(self.sharing.values()), NAME, attention, self.shared),
            ):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _splice(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Put the prefixes into the cache of a prefill, and take their positions off its inputs."""
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:  # a decode step
            return None
        beams = len(embeds) // len(self.pictures)
        start = self.prompts.prefix
        cache = kwargs.get("past_key_values")
        if cache is None:
            cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        rows = [self.prefixes[row] for row in range(len(self.pictures)) for _ in range(beams)]
        distinct = list({id(prefix): prefix for prefix in rows}.values())
        numbers = {id(prefix): number for number, prefix in enumerate(distinct)}
        self.shared.assign([numbers[id(prefix)] for prefix in rows], embeds.device)
        cache.layers = [
            self._layer(index, rows, distinct) for index in range(len(distinct[0].layers))
        ]
        changed = {
            "inputs_embeds": embeds[:, start:],
            "position_ids": self.prompts.places().repeat_interleave(beams, dim=0)[:, start:],
            "past_key_values": cache,
        }
        if kwargs.get("cache_position") is not None:  # transformers 4
            changed["cache_position"] = kwargs["cache_position"][start:]
        return args, {**kwargs, **changed}

    def _layer(
        self, index: int, rows: Sequence[CachedPrefix], distinct: Sequence[CachedPrefix]
    ) -> GrowingLayer:
        """Return a layer's cache: behind shared prefixes, or with a copy for each row."""
        if index not in self.sharing:
            return GrowingLayer(*zip(*(prefix.layers[index] for prefix in rows), strict=True))
        keys, values = zip(*(prefix.layers[index] for prefix in distinct), strict=True)
        self.shared.layers[index] = torch.cat(keys), torch.cat(values)
        return RestLayer(keys[0], len(rows))

    def _compare(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Compare the heads that a prefill found with those of the prefixes.

        Raises:
            _OtherHeads: If some differ.
        """
        handle = handle_of(self.model)
        if handle is None or kwargs.get("inputs_embeds") is None:
            return
        found = heads_of(handle, len(self.pictures))
        other = {
            row: heads
            for row, heads in enumerate(found)
            if heads != self.prefixes[row].heads and row not in self.whole
        }
        if other:
            raise _OtherHeads(other)

    def _prefill(self, rows: Sequence[int]) -> None:
        """Compute prefixes, as many at a time as keep the device busy."""
        device = self.prompts.embeds.device
        together = max(1, PREFILL_TOKENS.get(device.type, 1) // self.prompts.embeds.shape[1])
        for at in range(0, len(rows), together):
            some = list(rows[at : at + together])
            for row, prefix in zip(some, computed(self.model, self.prompts, some), strict=True):
                self.store.of(self.pictures[row]).append(prefix)
                self.prefixes[row] = prefix
                self.whole.add(row)
            self.store.prefills += len(some)
            self.store.passes += 1
