"""Read the prompt of a forward pass, with its image tokens, from the arguments of a model.

Axes: B batch, K keys (cached tokens and this pass's).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import torch

from eah.detection import image_rows
from eah.errors import EAHStateError
from eah.prompt import (
    ImageColumns,
    Prompt,
    cached_tokens,
    check_unpadded,
    columns_of_mask,
    columns_of_span,
    read_prompt,
    repeat_rows,
    token_mask,
)
from eah.prompt_end import Generation
from eah.state import PromptLength, Session, scoped_value

UNKNOWN_IMAGE: Final = (
    "the prompt's image tokens are not known (the config names no image token, and the model gets "
    "no embeddings that can be compared with its table); run it inside `with eah.image_tokens("
    "model, span_or_mask)`, or disable EAH for it"
)
OTHER_THREAD: Final = (
    "`eah.image_tokens` is active in another thread, but this thread has no such block; enter "
    "the block in the thread that calls the model (it applies to that thread only)"
)

# Devices where reading a tensor's values costs nothing, because they are in host memory.
HOST_DEVICES: Final = ("cpu",)
# Arguments of a language model that contain no image.
TEXT: Final = frozenset(
    ("input_ids", "attention_mask", "position_ids", "past_key_values", "cache_position", "labels")
)
POSITION_MASK: Final = "image_embeds_position_mask"  # Kosmos's argument: 1 at image tokens


def prompt_of(
    session: Session, model: Any, arguments: Mapping[str, Any], *, is_decoder: bool
) -> Prompt | None:
    """Return the prompt of a pass; None if its image tokens are not known.

    Args:
        session: The patched model's session.
        model: The model whose `forward` is called.
        arguments: Its arguments by name.
        is_decoder: Whether no inner model reads the prompt again.
    Raises:
        EAHStateError: If the image tokens are split over passes, or out of range.
    """
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    tokens = ids if ids is not None else embeds
    assert tokens is not None, "a pass has tokens"
    batch, queries = tokens.shape[:2]
    past = arguments.get("past_key_values")
    cached = cached_tokens(past)
    length, end = scoped_value(session, "prompt_length"), None
    generation = length if isinstance(length, Generation) else None
    if generation is not None:
        uses_cache = arguments.get("use_cache") is not False
        end = generation.end_of_prompt(cached, queries, uses_cache=uses_cache)
        length = PromptLength(torch.full((1, 1), end.length), end.length, end.length)
    if (cached and queries == 1) or (length is not None and cached >= length.last):
        return Prompt(queries, cached, is_decoding=True)
    answer = None
    if length is not None and length.first < cached + queries:
        answer = repeat_rows(length.rows, batch, "prompt length")
    valid = token_mask(arguments.get("attention_mask"), cached, queries)
    columns = _given(session, batch, cached + queries, valid, tokens.device)
    if columns is None:
        here = (
            _detect(session, model, tokens, cached, valid)
            if ids is None
            else _placeholders(session, arguments, ids, is_decoder=is_decoder)
        )
        if here is None:
            return None
        columns = ImageColumns(session.cached_images.columns(past, cached, here))
    prompt = read_prompt(
        columns,
        queries=queries,
        cached=cached,
        valid=valid,
        answer=answer,
        continues=scoped_value(session, "prefix") is not None,
        has_more=end is not None and end.has_more,
        checks_for_image=tokens.device.type in HOST_DEVICES or not session.leaves_text_alone,
    )
    if generation is not None and end is not None:
        generation.note(end)
    session.cached_images.keep(past, columns.here)
    return prompt


def _given(
    session: Session,
    batch: int,
    keys: int,
    valid: torch.Tensor | None,
    device: torch.device,
) -> ImageColumns | None:
    """Return the image tokens set by a block or the settings; None if neither sets them."""
    given = scoped_value(session, "image_tokens")
    if given is None and session.open_blocks:
        raise EAHStateError(OTHER_THREAD)
    if given is None and session.config is not None:
        given = session.config.image_span
    if session.config is not None and session.config.rule == "released_code":
        check_unpadded(valid)
    if given is None:
        return None
    if isinstance(given, torch.Tensor):
        return columns_of_mask(given, batch, keys, device)
    columns, length = columns_of_span(given, batch, keys, valid, device)
    if keys < given[1] or (valid is not None and bool((length < given[1]).any())):
        raise EAHStateError(
            f"image span [{given[0]}, {given[1]}) reaches past the {int(length.min())} tokens "
            "of the prompt; give the span of this prompt, or disable EAH for it"
        )
    return ImageColumns(columns)


def _placeholders(
    session: Session, arguments: Mapping[str, Any], ids: torch.Tensor, *, is_decoder: bool
) -> torch.Tensor | None:
    """Return the image tokens among token ids, (B, Q) bool; None if they are not known."""
    wanted = session.placeholder_ids()
    if wanted:
        # Not `torch.isin` with a new tensor: copying that to a GPU would synchronize.
        return functools.reduce(torch.logical_or, [ids == one for one in wanted])
    position_mask = arguments.get(POSITION_MASK)
    if isinstance(position_mask, torch.Tensor):
        batch, width = ids.shape
        return columns_of_mask(position_mask.bool()[:, -width:], batch, width, ids.device).here
    tensors = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    if is_decoder and TEXT.issuperset(tensors):
        return torch.zeros_like(ids, dtype=torch.bool)
    return None


def _detect(
    session: Session, model: Any, embeds: torch.Tensor, cached: int, valid: torch.Tensor | None
) -> torch.Tensor | None:
    """Return the image tokens among embeddings, (B, Q) bool; None if they are not known.

    They equal no row of the embedding table, or are placeholders that the model replaces.
    """
    kinds = [kind for kind, ids in session.vision_ids.items() if ids]
    kind = "all" if session.config is None else session.config.vision_tokens
    if kind != "all" and kinds != [kind]:
        return None  # pictures and videos look alike
    try:
        embed = model.get_input_embeddings()
    except NotImplementedError:  # transformers raises it for a model without one table
        return None
    known = session.rows.known(embed, embeds)
    if known is None:
        return None
    found = image_rows(known, embeds, None if valid is None else valid[:, cached:])
    if not cached and bool((found.image.any(-1) & ~found.has_text).any()):
        return None
    return found.image | session.rows.equal(embed, session.placeholder_ids(), embeds)
