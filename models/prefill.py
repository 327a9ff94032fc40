"""Compute the prefixes of prompts: keys and values up to the picture's end.

Axes: B prompts, P positions of the prefix, N key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import torch
from transformers import DynamicCache

import eah
from eah.context import sharing_prefix
from eah.find import attention_modules
from eah.method import Columns
from eah.patch import handle_of
from eah.prefix import SharedPrefix
from models.decoding.own_attention import replaced
from models.generation import EncodedPrompts, image_tokens
from models.prefix_store import CachedPrefix, Heads
from models.shared_keys import KERNELS

LAST_KEYS: Final = "last_keys"


def computed(model: Any, prompts: EncodedPrompts, rows: list[int]) -> list[CachedPrefix]:
    """Return the prefixes of some prompts: run by themselves, or under EAH as parts of whole ones.

    Args:
        model: The language model.
        prompts: Prompts that are padded behind their prefix.
        rows: Which of them, in one forward pass.
    """
    handle = handle_of(model)
    length = prompts.prefix
    stop = None if handle else length
    shared = SharedPrefix(length)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    with (
        image_tokens(model, prompts.image_mask[rows, :stop]),
        sharing_prefix(model, shared),
        _up_to_last_keys(model),
    ):
        model(
            inputs_embeds=prompts.embeds[rows, :stop],
            attention_mask=prompts.attention_mask[rows, :stop],
            position_ids=prompts.places()[rows, :stop],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    heads: list[Heads] = heads_of(handle, len(rows)) if handle else [{}] * len(rows)
    found = []
    for at in range(len(rows)):
        mine = slice(at, at + 1)
        # Copies: a slice would keep the whole batch's memory.
        layers = [
            (one.keys[mine, :, :length].clone(), one.values[mine, :, :length].clone())
            for one in cache.layers
        ]
        sums = {
            layer: Columns(*(part[mine] for part in parts)) for layer, parts in shared.sums.items()
        }
        found.append(CachedPrefix(layers, heads[at], sums))
    return found


class _LastKeys(Exception):
    """The last layer's keys and values are in the cache; nobody needs what comes after them."""


@contextmanager
def _up_to_last_keys(model: Any) -> Iterator[None]:
    """In a `with` block, end a forward pass when the last layer has its keys and values."""
    modules = attention_modules(model)
    last = modules[max(modules)]
    if last.config._attn_implementation not in KERNELS:
        yield
        return
    with suppress(_LastKeys), replaced([last], LAST_KEYS, _end, None):
        yield


def _end(*_: Any, **__: Any) -> None:
    raise _LastKeys


def heads_of(handle: eah.EAHHandle, prompts: int) -> list[Heads]:
    """Return the heads that the last prefill found for each prompt, whose beams all have the same.

    One look from the host for all layers.
    """
    chosen = [handle.choices[layer].head for layer in handle.layers]
    heads = torch.stack([head.to(chosen[0].device) for head in chosen])  # (layers, B)
    heads = heads[:, :: heads.shape[1] // prompts]
    return [dict(zip(handle.layers, row, strict=True)) for row in heads.T.tolist()]
