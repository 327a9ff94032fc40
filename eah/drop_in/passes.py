"""The forward pass under way: its prompt, read from the arguments of the model."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from eah.drop_in.callers import _Generation, _given, _length, _open_blocks
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
from eah.settings import DEFAULT_SPAN, DropInSettings

logger = logging.getLogger(__name__)

REMEMBERED: Final = 256  # forward passes whose backward pass may still come

_current: ContextVar[Any] = ContextVar("eah_prompt", default=None)


@dataclass
class PatchedModel:
    """What a patched model shares with its target attention modules.

    Attributes:
        settings: The settings in force.
        warned: Whether a prompt that is too short was warned of.
        checkpointed: Prompts by the address of their position ids, for gradient checkpointing.
    """

    settings: DropInSettings
    warned: bool = False
    checkpointed: OrderedDict[int, Prompt] = field(default_factory=OrderedDict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep the settings and nothing else."""
        return PatchedModel, (self.settings,)

    def read(self, arguments: Mapping[str, Any]) -> Prompt | None:
        """Read a forward pass of the model from its arguments; None if there is no prompt.

        Raises:
            EAHStateError: If EAH can't know the image tokens, or can't see all of them.
        """
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = embeds if ids is None else ids
        if tokens is None:
            return None
        (batch, queries), device = tokens.shape[:2], tokens.device
        cached = cached_tokens(arguments.get("past_key_values"))
        keys, length = cached + queries, _length.get()
        if isinstance(length, _Generation):
            length = torch.full((1, 1), length.prompt_length(keys))
        if (cached and queries == 1) or (length is not None and cached >= int(length.max())):
            return Prompt(queries, cached, is_decoding=True)
        answer = None
        if length is not None and int(length.min()) < keys:
            answer = repeat_rows(length, batch, "prompt length")
        valid = token_mask(arguments.get("attention_mask"), cached, queries)
        return read_prompt(
            self._columns(batch, keys, valid, device),
            queries=queries,
            cached=cached,
            valid=None if valid is None else valid.to(device),
            answer=answer,
        )

    def _columns(
        self, batch: int, keys: int, valid: torch.Tensor | None, device: torch.device
    ) -> ImageColumns:
        """Return the image tokens among the keys; none in too short a prompt."""
        given = _given.get()
        if given is None and _open_blocks:
            raise EAHStateError(
                "`image_tokens` is in force in another thread, and this thread has no such block; "
                "enter the block in the thread that calls the model (it holds for that one alone)"
            )
        if self.settings.config.rule == "released_code":
            check_unpadded(valid)
        if isinstance(given, torch.Tensor):
            return columns_of_mask(given, batch, keys, device)
        start, stop = given or self.settings.config.image_span or DEFAULT_SPAN
        columns, length = columns_of_span((start, stop), batch, keys, valid, device)
        fits = length >= stop
        if not self.warned and not bool(fits.all()):
            self.warned = True
            logger.warning(
                "EAH: a prompt of %d tokens is too short for the image tokens %d:%d, so it runs "
                "without EAH; EAH_IMAGE_SPAN or image_tokens() says where they are",
                int(length.min()),
                start,
                stop,
            )
        return ImageColumns(columns & fits[:, None])

    def remember(self, position_ids: torch.Tensor, prompt: Prompt) -> None:
        """Keep a prompt until its layers are run again in the backward pass."""
        self.checkpointed[position_ids.data_ptr()] = prompt
        while len(self.checkpointed) > REMEMBERED:
            self.checkpointed.popitem(last=False)
