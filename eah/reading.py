"""Read a forward pass from the arguments of a model: its prompt and where its image tokens are.

Axes: B batch, K keys (cached tokens and this pass's).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import torch

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
from eah.state import Session, said

UNKNOWN_IMAGE: Final = (
    "the prompt's image tokens are not known (embeddings, or a model whose config names no image "
    "token); run it inside `with eah.image_tokens(model, span_or_mask)`, or disable EAH for it"
)
OTHER_THREAD: Final = (
    "`eah.image_tokens` is in force in another thread, and this thread has no such block; enter "
    "the block in the thread that calls the model (it holds for that thread alone)"
)


def prompt_of(
    session: Session, arguments: Mapping[str, Any], ids: torch.Tensor | None, tokens: torch.Tensor
) -> Prompt:
    """Return what is known of a pass, and what EAH does in it.

    Args:
        session: The patched model's session.
        arguments: Arguments of the model's `forward` by name.
        ids: Its token ids, shape (B, Q), if it got any.
        tokens: Its token ids or embeddings, shape (B, Q) or (B, Q, width).
    Raises:
        EAHStateError: If EAH can't know the image tokens, or can't see all of them.
    """
    batch, queries = tokens.shape[:2]
    past = arguments.get("past_key_values")
    cached = cached_tokens(past)
    length = said(session, "prompt_length")
    if (cached and queries == 1) or (length is not None and cached >= length.last):
        return Prompt(queries, cached, is_decoding=True)
    answer = None
    if length is not None and length.first < cached + queries:
        answer = repeat_rows(length.rows, batch, "prompt length")
    valid = token_mask(arguments.get("attention_mask"), cached, queries)
    columns = _columns(session, ids, tokens, past, cached, valid)
    if columns is None:
        if session.config is not None:
            raise EAHStateError(UNKNOWN_IMAGE)
        return Prompt(queries, cached, skipped=UNKNOWN_IMAGE.split(";")[0])
    prompt = read_prompt(
        columns,
        queries=queries,
        cached=cached,
        valid=valid,
        answer=answer,
        continues=said(session, "prefix") is not None,
    )
    with suppress(TypeError):  # no cache, or tuples of tensors
        session.cached_images[past] = columns.here
    return prompt


def _columns(
    session: Session,
    ids: torch.Tensor | None,
    tokens: torch.Tensor,
    past: Any,
    cached: int,
    valid: torch.Tensor | None,
) -> ImageColumns | None:
    """Return the image tokens among the keys from the first source that knows them."""
    batch, keys, device = tokens.shape[0], cached + tokens.shape[1], tokens.device
    given = said(session, "image_tokens")
    if given is None and session.open_blocks:
        raise EAHStateError(OTHER_THREAD)
    if given is None and session.config is not None:
        given = session.config.image_span
    if session.config is not None and session.config.rule == "released_code":
        check_unpadded(valid)
    if isinstance(given, torch.Tensor):
        return columns_of_mask(given, batch, keys, device)
    if given is not None:
        columns, length = columns_of_span(given, batch, keys, valid, device)
        if bool((length < given[1]).any()):
            raise EAHStateError(
                f"image span [{given[0]}, {given[1]}) reaches past the {int(length.min())} tokens "
                "of the prompt; give the span of this prompt, or disable EAH for it"
            )
        return ImageColumns(columns)
    wanted = session.placeholder_ids()
    if ids is None or not wanted:
        return None
    columns = torch.zeros(batch, keys, dtype=torch.bool, device=device)
    columns[:, cached:] = torch.isin(ids, torch.tensor(wanted, device=device))
    columns[:, :cached] = _cached_image(session, past, cached, columns)
    return ImageColumns(columns)


def _cached_image(
    session: Session, past: Any, cached: int, columns: torch.Tensor
) -> torch.Tensor | bool:
    """Return the image tokens that earlier passes put into a cache, as far as they are known."""
    found = None
    with suppress(TypeError):  # tuples of tensors can't be remembered
        found = session.cached_images.get(past)
    if found is None or not cached:
        return False
    found = found[:, :cached].to(columns.device)
    if len(found) != len(columns):  # rows were repeated or dropped
        found = found.any(0, keepdim=True)
    before = torch.zeros_like(columns[:, :cached])
    before[:, : found.shape[1]] = found
    return before
