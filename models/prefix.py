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

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

import eah
from eah.modeling_llama_eah import ColumnSums
from eah.patch import handle_of, sharing_prefix
from eah.prefix import SharedPrefix
from models.cache import GrowingLayer
from models.generation import EncodedPrompts, image_tokens

Heads = dict[int, int]
"""Densest head by layer, -1 for none."""


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """The prefix of the prompts about one picture.

    Attributes:
        layers: Keys and values of each layer, (1, N, P, D).
        heads: What EAH shared when they were computed; empty without EAH.
        sums: What EAH's target layers found in the prefix's rows.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    heads: Heads
    sums: dict[int, ColumnSums]


@dataclass(slots=True)
class PrefixStore:
    """The prefixes of a few pictures under one method.

    Attributes:
        prompts: Prompts that were answered.
        prefills: Prefixes that were computed for them.
        passes: Forward passes that this took, besides those of the answers.
    """

    prompts: int = 0
    prefills: int = 0
    passes: int = 0
    _kept: dict[Hashable, list[CachedPrefix]] = field(default_factory=dict)

    @property
    def reused(self) -> int:
        """Prompts that went on behind a prefix that was computed for another one."""
        return self.prompts - self.prefills

    def of(self, picture: Hashable) -> list[CachedPrefix]:
        """Return the prefixes of a picture, one for each choice of heads that was met."""
        return self._kept.setdefault(picture, [])

    def keep(self, pictures: Collection[Hashable]) -> None:
        """Forget all other pictures."""
        self._kept = {
            picture: prefixes
            for picture, prefixes in self._kept.items()
            if (picture.picture if isinstance(picture, Noised) else picture) in pictures
        }


class Noised(NamedTuple):
    """A picture under noise, which has a prefix of its own."""

    picture: Hashable


class Sharing(NamedTuple):
    """Which prompts of a batch are about the same picture, and where their prefixes are kept."""

    pictures: Sequence[Hashable]
    store: PrefixStore

    def with_noised(self) -> Sharing:
        """Return the same for a batch that is followed by itself about noised pictures."""
        return Sharing([*self.pictures, *map(Noised, self.pictures)], self.store)


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
        self.places = (prompts.attention_mask.cumsum(-1) - 1).clamp(min=0)  # (B, S)
        self.prefixes: dict[int, CachedPrefix] = {}
        self.repaired: set[int] = set()
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
            layer: ColumnSums(
                *map(torch.cat, zip(*(self.prefixes[row].sums[layer] for row in rows), strict=True))
            )
            for layer in (handle.layers if handle else ())
        }
        hooks = [
            # Before EAH's own, which is to see what is left of the prompts.
            self.model.register_forward_pre_hook(self._splice, with_kwargs=True, prepend=True),
            self.model.register_forward_hook(self._compare, with_kwargs=True),
        ]
        try:
            with sharing_prefix(self.model, SharedPrefix(self.prompts.prefix, sums)):
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
        cache.layers = [
            GrowingLayer(*zip(*layer, strict=True))
            for layer in zip(*(prefix.layers for prefix in rows), strict=True)
        ]
        changed = {
            "inputs_embeds": embeds[:, start:],
            "position_ids": self.places.repeat_interleave(beams, dim=0)[:, start:],
            "past_key_values": cache,
        }
        if kwargs.get("cache_position") is not None:  # transformers 4
            changed["cache_position"] = kwargs["cache_position"][start:]
        return args, {**kwargs, **changed}

    def _compare(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Compare the heads that a prefill found with those of the prefixes.

        Raises:
            _OtherHeads: If some differ.
        """
        handle = handle_of(self.model)
        if handle is None or kwargs.get("inputs_embeds") is None:
            return
        found = _heads(handle, len(self.pictures))
        other = {
            row: heads
            for row, heads in enumerate(found)
            if heads != self.prefixes[row].heads and row not in self.whole
        }
        if other:
            raise _OtherHeads(other)

    def _prefill(self, rows: list[int]) -> None:
        """Compute prefixes: by itself, or under EAH by running the whole prompts."""
        if not rows:
            return
        handle = handle_of(self.model)
        length = self.prompts.prefix
        stop = None if handle else length
        shared = SharedPrefix(length)
        image = self.prompts.image_mask[rows, :stop]
        with image_tokens(self.model, image), sharing_prefix(self.model, shared):
            output = self.model(
                inputs_embeds=self.prompts.embeds[rows, :stop],
                attention_mask=self.prompts.attention_mask[rows, :stop],
                position_ids=self.places[rows, :stop],
                use_cache=True,
                logits_to_keep=1,
            )
        heads = _heads(handle, len(rows)) if handle else [{}] * len(rows)
        for at, row in enumerate(rows):
            mine = slice(at, at + 1)
            prefix = CachedPrefix(
                # Copies: a slice would keep the whole batch's memory.
                [
                    (one.keys[mine, :, :length].clone(), one.values[mine, :, :length].clone())
                    for one in output.past_key_values.layers
                ],
                heads[at],
                {
                    layer: ColumnSums(*(part[mine] for part in sums))
                    for layer, sums in shared.sums.items()
                },
            )
            self.store.of(self.pictures[row]).append(prefix)
            self.prefixes[row] = prefix
            self.whole.add(row)
        self.store.prefills += len(rows)
        self.store.passes += 1


def _heads(handle: eah.EAHHandle, prompts: int) -> list[Heads]:
    """Return the heads that the last prefill found for each prompt, whose beams all have the same.

    One look from the host for all layers.
    """
    chosen = [handle.choices[layer].head for layer in handle.layers]
    heads = torch.stack([head.to(chosen[0].device) for head in chosen])  # (layers, B)
    heads = heads[:, :: heads.shape[1] // prompts]
    return [dict(zip(handle.layers, row, strict=True)) for row in heads.T.tolist()]
