"""Cached prefixes: keys and values of system message and picture, computed once.

Only a few tokens out of several hundred follow the picture. So keys and values up to the end of the
picture are computed once per picture and method, and each question runs only the rest.

Under EAH the densest head also depends on a few rows of the question. The first question about a
picture runs in full, and the others continue after its prefix. If one of them finds another densest
head, it runs again after a prefix that was computed with that head.

Axes: B prompts, R rows (prompts and their beams), U distinct prefixes, M rows of the prefix that
most rows have, P positions of a prefix, H heads, N key/value heads, Q queries, T keys after the
prefix, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from eah.context import sharing_prefix
from eah.find import attention_modules
from eah.handle import EAHHandle
from eah.method import Columns
from eah.patch import handle_of
from eah.prefix import SharedPrefix
from models.decoding.attention_replacement import (
    KERNELS,
    AttentionCall,
    Output,
    in_this_thread,
    is_replaced,
    is_wrapped_by_eah,
    kernel_name,
    replace_attention,
)
from models.generation import EncodedPrompts, image_tokens
from models.prompt_images import current_images, prompt_images

# Tokens that are prefilled together: enough to keep a GPU busy, while their activations stay small
# compared with the weights. One prompt keeps a CPU busy.
PREFILL_TOKENS: Final = {"cuda": 8192}
MAX_BYTES: Final = 8 << 30

Heads = tuple[int, ...]
"""Densest head of each target layer, -1 for none; empty without EAH."""


@dataclass(frozen=True, slots=True, eq=False)
class CachedPrefix:
    """The prefix of the prompts about one picture."""

    picture: Hashable  # identifies the picture and the method
    layers: list[tuple[torch.Tensor, torch.Tensor]]  # keys and values, (1, N, P, D) each
    heads: Heads  # heads that EAH shared when they were computed
    sums: dict[int, Columns]  # EAH's sums over the rows of the prefix, by target layer
    # Tokens of the prefix that a method marked, by layer, (1, P) bool.
    marks: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        parts = (*self.layers, *self.sums.values(), tuple(self.marks.values()))
        return sum(part.nbytes for tensors in parts for part in tensors)


class Noised(NamedTuple):
    """A picture with noise, which has a separate prefix."""

    picture: Hashable


@dataclass(slots=True)
class PrefixCache:
    """Prefixes that are kept for later batches, and how often they were used.

    The least recently used ones are dropped first, but none that the running batch uses.
    """

    max_bytes: int = MAX_BYTES  # of all prefixes between batches; 0 keeps none
    prompts: int = 0  # number of answered prompts
    prefills: int = 0  # number of prefixes that were computed for them
    passes: int = 0  # forward passes for prefixes, without those of the answers
    kept: list[CachedPrefix] = field(default_factory=list)  # the least recently used first

    @property
    def reused(self) -> int:
        """Number of prompts that continued after a prefix computed for another prompt."""
        return self.prompts - self.prefills

    @property
    def nbytes(self) -> int:
        """Bytes of all cached prefixes."""
        return sum(prefix.nbytes for prefix in self.kept)

    def find(self, picture: Hashable, heads: Heads | None) -> CachedPrefix | None:
        """Return the most recently used prefix of a picture, with these heads or any (None)."""
        for prefix in reversed(self.kept):
            if prefix.picture == picture and heads in (None, prefix.heads):
                self.kept.append(self.kept.pop(self.kept.index(prefix)))
                return prefix
        return None

    def evict(self, needed: Collection[CachedPrefix] = ()) -> None:
        """Drop prefixes until the rest fits into `max_bytes`, but none that a batch needs."""
        excess = self.nbytes - self.max_bytes
        for prefix in [prefix for prefix in self.kept if prefix not in needed]:
            if excess <= 0:
                break
            self.kept.remove(prefix)
            excess -= prefix.nbytes

    def keep(self, is_needed: Callable[[Any], bool]) -> None:
        """Drop the prefixes of pictures that are not needed, with or without noise."""
        names = [prefix.picture for prefix in self.kept]
        named = [name.picture if isinstance(name, Noised) else name for name in names]
        self.kept[:] = [p for p, name in zip(self.kept, named, strict=True) if is_needed(name)]


class PicturePrefixes(NamedTuple):
    """The picture of each prompt of a batch, and the cache of prefixes."""

    pictures: Sequence[Hashable]
    cache: PrefixCache

    def add_noised(self) -> PicturePrefixes:
        """Return the same for the batch followed by its copy with noised pictures."""
        return PicturePrefixes([*self.pictures, *map(Noised, self.pictures)], self.cache)


def generate_after_prefixes(
    model: Any,
    prompts: EncodedPrompts,
    prefixes: PicturePrefixes,
    generate: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """Call `generate` with the cached prefixes of the prompts, and return its result.

    Args:
        model: The language model that `generate` runs.
        prompts: The prompts that `generate` passes to it, padded after the prefix
            (`EncodedPrompts.prefix`).
        prefixes: The pictures of the prompts, and the cache.
        generate: Runs the whole prompts, possibly repeated for beams.
    """
    batch, cache = _Batch(model, prompts, *prefixes), prefixes.cache
    cache.prompts += len(prefixes.pictures)
    wanted: dict[int, Heads | None] = dict.fromkeys(range(len(prefixes.pictures)))
    try:
        while True:
            batch.assign(wanted)
            try:
                with batch.splice_prefixes():
                    return generate()
            except _OtherHeads as other:
                cache.passes += 1
                (wanted,) = other.args
    finally:
        cache.evict()


class _OtherHeads(Exception):
    """Some prompts found other heads than those of their prefixes. Argument: heads by row."""


class _Batch:
    """Prompts, each with the prefix that it continues after."""

    def __init__(
        self, model: Any, prompts: EncodedPrompts, pictures: Sequence[Hashable], cache: PrefixCache
    ) -> None:
        self.model, self.prompts, self.pictures, self.cache = model, prompts, pictures, cache
        self.prefixes: dict[int, CachedPrefix] = {}  # by row
        self.corrected: set[int] = set()  # rows that have already found other heads once
        self.whole: set[int] = set()  # rows whose prefix was computed from their own prompt

    def assign(self, wanted: dict[int, Heads | None]) -> None:
        """Assign each row a prefix with the heads that it found (None for any), cached or computed.

        With several target layers, a wrong head can make the heads of later layers wrong as well,
        so a row that found other heads twice runs in full.
        """
        missing: dict[Hashable, list[int]] = {}
        for row, heads in wanted.items():
            if row in self.corrected:
                missing[row] = [row]
            elif prefix := self.cache.find(self.pictures[row], heads):
                self.prefixes[row] = prefix
            else:
                missing.setdefault((self.pictures[row], heads), []).append(row)
            if heads is not None:
                self.corrected.add(row)
        together = PREFILL_TOKENS.get(self.prompts.embeds.device.type, 1)
        size = max(1, together // self.prompts.embeds.shape[1])
        groups = list(missing.values())
        for some in (groups[at : at + size] for at in range(0, len(groups), size)):
            pictures = {rows[0]: self.pictures[rows[0]] for rows in some}
            computed = compute_prefixes(self.model, self.prompts, pictures)
            for rows, prefix in zip(some, computed, strict=True):
                self.prefixes |= dict.fromkeys(rows, prefix)
            self.whole |= pictures.keys()
            self.cache.kept += computed
            self.cache.prefills += len(some)
            self.cache.passes += 1
            self.cache.evict(set(self.prefixes.values()))

    @contextmanager
    def splice_prefixes(self) -> Iterator[None]:
        """In a `with` block, let the model run only what follows the prefixes of its prompts."""
        prefixes = [self.prefixes[row] for row in range(len(self.pictures))]
        sums = {
            layer: Columns(*map(torch.cat, zip(*(p.sums[layer] for p in prefixes), strict=True)))
            for layer in prefixes[0].sums
        }
        keys = PrefixKeys()
        modules = {
            layer: module
            for layer, module in attention_modules(self.model).items()
            if _can_attend_to_prefixes(module)
        }
        if (images := current_images()) is not None:
            rest = images.length - self.prompts.prefix
            images.marks = {
                layer: functional.pad(torch.cat([p.marks[layer] for p in prefixes]), (0, rest))
                for layer in prefixes[0].marks
            }

        def splice(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            """Put the prefixes into the cache of a prefill, and remove them from its inputs."""
            embeds = kwargs.get("inputs_embeds")
            if embeds is None:  # a decode step
                return None
            beams, start = len(embeds) // len(prefixes), self.prompts.prefix
            rows = [prefix for prefix in prefixes for _ in range(beams)]
            keys.assign(rows, modules, embeds.device)
            cache = kwargs.get("past_key_values")
            if cache is None:
                cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
            cache.layers = []
            for index in range(len(rows[0].layers)):
                layer = RestLayer(start, keys) if index in modules else DynamicLayer()
                if index not in modules:
                    own = zip(*(prefix.layers[index] for prefix in rows), strict=True)
                    layer.update(*map(torch.cat, own))
                cache.layers.append(layer)
            positions = self.prompts.position_ids()
            changed = {
                "inputs_embeds": embeds[:, start:],
                "position_ids": positions.repeat_interleave(beams, dim=0)[:, start:],
                "past_key_values": cache,
            }
            if kwargs.get("cache_position") is not None:  # transformers 4
                changed["cache_position"] = kwargs["cache_position"][start:]
            return args, {**kwargs, **changed}

        with (
            # Before EAH's own hook, which must see only the rest of the prompts.
            self.model.register_forward_pre_hook(
                in_this_thread(splice), with_kwargs=True, prepend=True
            ),
            self.model.register_forward_hook(in_this_thread(self._compare_heads), with_kwargs=True),
            sharing_prefix(self.model, SharedPrefix(self.prompts.prefix, sums)),
            replace_attention(list(modules.values()), keys.attend),
        ):
            yield

    def _compare_heads(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Raise `_OtherHeads` if a prefill found other heads than those of the prefixes."""
        handle = handle_of(self.model)
        if handle is None or kwargs.get("inputs_embeds") is None:
            return
        other: dict[int, Heads | None] = {
            row: heads
            for row, heads in enumerate(_read_heads(handle, len(self.pictures)))
            if row not in self.whole and heads != self.prefixes[row].heads
        }
        if other:
            raise _OtherHeads(other)


def compute_prefixes(
    model: Any, prompts: EncodedPrompts, pictures: Mapping[int, Hashable]
) -> list[CachedPrefix]:
    """Compute the prefixes of some prompts: alone, or under EAH as parts of whole prompts.

    Args:
        model: The language model.
        prompts: Prompts that are padded after their prefix.
        pictures: The picture of each prompt to run, by row; all run in one forward pass.
    """
    handle, rows, length = handle_of(model), list(pictures), prompts.prefix
    stop = None if handle else length
    prefix = SharedPrefix(length)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    with (
        image_tokens(model, prompts.image_mask[rows, :stop]),
        prompt_images(prompts.image_mask[rows], stop or 0) as images,
        sharing_prefix(model, prefix),
        _stop_at_last_keys(model),
    ):
        model(
            inputs_embeds=prompts.embeds[rows, :stop],
            attention_mask=prompts.attention_mask[rows, :stop],
            position_ids=prompts.position_ids()[rows, :stop],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    heads: list[Heads] = _read_heads(handle, len(rows)) if handle else [()] * len(rows)
    found = []
    for row, picture in enumerate(pictures.values()):
        mine = slice(row, row + 1)
        # Copies: a slice would keep the memory of the whole batch.
        layers = [
            (one.keys[mine, :, :length].clone(), one.values[mine, :, :length].clone())
            for one in cache.layers
        ]
        sums = {
            layer: Columns(*(part[mine].clone() for part in parts))
            for layer, parts in prefix.sums.items()
        }
        marked = {} if images is None else images.marks
        marks = {layer: one[mine, :length].clone() for layer, one in marked.items()}
        found.append(CachedPrefix(picture, layers, heads[row], sums, marks))
    return found


@contextmanager
def _stop_at_last_keys(model: Any) -> Iterator[None]:
    """In a `with` block, stop a forward pass once the last layer has its keys and values."""

    class LastKeys(Exception):
        """Nothing after them is needed."""

    def stop(_: AttentionCall) -> Output:
        raise LastKeys

    modules = attention_modules(model)
    last = modules[max(modules)]
    stopped = [last] if _can_attend_to_prefixes(last) else []
    with suppress(LastKeys), replace_attention(stopped, stop):
        yield


def _read_heads(handle: EAHHandle, prompts: int) -> list[Heads]:
    """Return the heads that the last prefill found for each prompt (the same for all its beams).

    It synchronises with the device once for all layers.
    """
    chosen = [handle.choices[layer].head for layer in handle.layers]
    heads = torch.stack([head.to(chosen[0].device) for head in chosen])  # (layers, R)
    heads = heads[:, :: heads.shape[1] // prompts]  # (layers, R) -> (layers, B)
    return [tuple(row) for row in heads.T.tolist()]


def _can_attend_to_prefixes(module: Any) -> bool:
    """Return whether a module can attend to prefixes that are stored once for several rows.

    Modules that EAH or a method changes need all their keys, and other kernels may not support it:
    these modules get a copy of the prefix for each row.
    """
    known = kernel_name(module) in KERNELS
    return known and not is_wrapped_by_eah(module) and not is_replaced(module)


class PrefixKeys:
    """Keys and values of the prefixes of a batch, and the rows that continue after each."""

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]  # by layer, each (U, N, P, D)
    members: torch.Tensor  # (U, M), rows of each prefix; if fewer, the last one is repeated
    slots: torch.Tensor  # (R,), index of each row in (U * M)

    def assign(
        self, prefixes: Sequence[CachedPrefix], layers: Collection[int], device: torch.device
    ) -> None:
        """Store the prefix of each row, with its keys and values in these layers."""
        members: dict[CachedPrefix, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            members.setdefault(prefix, []).append(row)
        most = max(map(len, members.values()))
        filled = [rows + rows[-1:] * (most - len(rows)) for rows in members.values()]
        flat = [row for rows in filled for row in rows]
        self.members = torch.tensor(filled, device=device)
        self.slots = torch.tensor([flat.index(row) for row in range(len(prefixes))], device=device)
        self.layers = {}
        for layer in layers:
            keys, values = zip(*(prefix.layers[layer] for prefix in members), strict=True)
            self.layers[layer] = torch.cat(keys), torch.cat(values)

    def attend(self, call: AttentionCall) -> Output:
        """Run a layer whose own keys are only those after the prefixes."""
        return attend_to_prefixes(
            self, call.layer, call.query, call.key, call.value, call.mask, call.scaling
        ), None


def attend_to_prefixes(
    prefixes: PrefixKeys,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Attend to the prefix of each row, and to its own keys after the prefix.

    This is plain attention without a copy of the prefix for each row: the scores on both parts are
    concatenated before the softmax.

    Args:
        prefixes: Keys and values of the prefixes.
        layer: Layer index.
        query: Shape (R, H, Q, D).
        key: Keys after the prefix, shape (R, N, T, D).
        value: Shape (R, N, T, D).
        attention_mask: Of prefix and rest, (R, 1, Q, P + T), bool or additive; None for no mask.
        scaling: Factor on the scores.
    Returns:
        Output, shape (R, Q, H, D).
    """
    first_keys, first_values = prefixes.layers[layer]
    members, slots = prefixes.members.to(query.device), prefixes.slots.to(query.device)
    rows, heads, queries, size = query.shape
    length, rest = first_keys.shape[2], key.shape[2]
    # Grouped heads are folded into X = H / N * Q rows, so that keys are not repeated per head.
    folded = query.reshape(rows, key.shape[1], -1, size) * scaling
    on_prefix = torch.einsum("umnxd,unpd->umnxp", folded[members], first_keys)
    on_rest = torch.matmul(folded, key.mT)
    scores = torch.cat([on_prefix.flatten(0, 1)[slots], on_rest], -1).float()  # (R, N, X, P + T)
    if attention_mask is not None:
        apart = scores.view(rows, heads, queries, length + rest)
        behind = attention_mask[..., length : length + rest]
        if behind.dtype == torch.bool:
            apart[..., length:].masked_fill_(~behind, torch.finfo(scores.dtype).min)
        else:
            apart[..., length:] += behind
    weights = scores.softmax(-1).to(value.dtype)
    of_prefix = weights[..., :length][members]  # (R, N, X, P) -> (U, M, N, X, P)
    output = torch.matmul(weights[..., length:], value)
    output += torch.einsum("umnxp,unpd->umnxd", of_prefix, first_values).flatten(0, 1)[slots]
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous()


class RestLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values after the prefixes, which count in its length only."""

    def __init__(self, prefix: int, keys_before: PrefixKeys) -> None:
        """Start empty, after a prefix of this length whose keys are in `keys_before`."""
        super().__init__()
        self.prefix, self.keys_before = prefix, keys_before

    def get_seq_length(self, *_: Any) -> int:
        """Return the number of tokens, the prefix's included."""
        return self.prefix + int(super().get_seq_length())
