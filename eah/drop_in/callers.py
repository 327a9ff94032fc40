"""`with` blocks that describe prompts: where image tokens are, and where the prompt ends."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from eah.errors import EAHConfigError
from eah.prompt_end import generation_of
from eah.settings import is_int, validate_span

_image_tokens: ContextVar[Any] = ContextVar("eah_image_tokens", default=None)
_prompt_length: ContextVar[Any] = ContextVar("eah_prompt_length", default=None)
_open_blocks: list[object] = []


@contextmanager
def image_tokens(tokens: tuple[int, int] | torch.Tensor) -> Iterator[None]:
    """Set which tokens of the prompts in this block are image tokens.

    The block applies to the thread that enters it. While it is open, other threads that call a
    model must enter their own blocks.

    Args:
        tokens: A span [start, stop) of every prompt, not counting padding, or a bool mask of shape
            (B, S) over the padded prompts.
    Raises:
        EAHConfigError: If it is neither.
    """
    if isinstance(tokens, torch.Tensor):
        if tokens.dim() != 2:
            raise EAHConfigError(f"an image mask has shape (B, S), not {tuple(tokens.shape)}")
        tokens = tokens.bool()
    else:
        tokens = validate_span(tokens)
    token, block = _image_tokens.set(tokens), object()
    _open_blocks.append(block)
    try:
        yield
    finally:
        _open_blocks.remove(block)
        _image_tokens.reset(token)


@contextmanager
def prompt_length(length: int | torch.Tensor) -> Iterator[None]:
    """Set where the answers begin that the forward passes in this block score.

    Args:
        length: Position of the answer's first token in the padded input, one for all prompts or
            one per prompt, shape (B,). Later rows attend as in decoding.
    Raises:
        EAHConfigError: If it is neither.
    """
    if isinstance(length, torch.Tensor) and length.dim() == 1 and not length.is_floating_point():
        rows = length[:, None]
    elif isinstance(length, int) and is_int(length) and length >= 1:
        rows = torch.full((1, 1), length)
    else:
        raise EAHConfigError(f"prompt length {length!r}; it is an int from 1, or one per prompt")
    token = _prompt_length.set(rows)
    try:
        yield
    finally:
        _prompt_length.reset(token)


def _patch_generate() -> None:
    """Make `generate` of every model record where its prompt ends.

    What follows is the answer, even if one pass runs both.
    """
    from transformers.generation.utils import GenerationMixin

    run = GenerationMixin.generate

    @functools.wraps(run)
    def patched_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        generation = generation_of(self, args, kwargs)
        if generation is None:
            return run(self, *args, **kwargs)
        token = _prompt_length.set(generation)
        try:
            return run(self, *args, **kwargs)
        finally:
            _prompt_length.reset(token)

    GenerationMixin.generate = patched_generate
