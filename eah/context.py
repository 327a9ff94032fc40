"""`with` blocks that describe prompts: image tokens, prompt length, cached prefix.

A block applies to the thread (more exactly, the context) that enters it, and to one model. On a
model without EAH it does nothing, so the same code runs the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from eah.errors import EAHConfigError
from eah.find import Model, transformers_model
from eah.prefix import SharedPrefix
from eah.settings import is_int, validate_span
from eah.state import STATE, PromptLength, Session, set_scoped


@contextmanager
def image_tokens(model: Model, tokens: torch.Tensor | tuple[int, int]) -> Iterator[None]:
    """Set the positions of the image tokens of the prompts in a `with` block.

    Needed if you pass embeddings only. It overrides the placeholder tokens and
    `EAHConfig.image_span`. While a block is open, other threads that call the model must enter
    their own blocks.

    Args:
        model: The model that is called in the block, or a wrapper that has it as `model`.
        tokens: A span (start, stop) of the prompt, not counting padding, or a mask of shape (B, S)
            over the padded prompt, True at image tokens. Beams repeat the rows of a mask.
    Raises:
        EAHConfigError: If the span is empty, or the mask is not a 2-D bool tensor.
    """
    if isinstance(tokens, torch.Tensor):
        if tokens.dim() != 2 or tokens.dtype != torch.bool or not len(tokens):
            raise EAHConfigError(
                f"image tokens of shape {tuple(tokens.shape)} and {tokens.dtype}; "
                "a mask is (batch, prompt length), not empty, and bool"
            )
    else:
        tokens = validate_span(tokens)
    sessions, block = sessions_of(transformers_model(model)), object()
    for session in sessions:
        session.open_blocks.append(block)
    try:
        with set_scoped(sessions, "image_tokens", tokens):
            yield
    finally:
        for session in sessions:
            session.open_blocks.remove(block)


@contextmanager
def prompt_length(model: Model, length: int | torch.Tensor) -> Iterator[None]:
    """Set where the answers begin that the forward passes in a `with` block score.

    Rows before this position get the shared map. Later rows attend as in decoding: with their own
    query and the original keys. `generate` needs no block: it knows its prompt.

    Args:
        model: The model that is called in the block, or a wrapper that has it as `model`.
        length: Position of the answer's first token in the padded input, for all prompts or one
            per prompt, shape (B,). Beams repeat it.
    Raises:
        EAHConfigError: If it is not a positive int, or not a 1-D integer tensor of them.
    """
    if isinstance(length, torch.Tensor):
        is_integer = not (length.is_floating_point() or length.dtype == torch.bool)
        if length.dim() != 1 or not is_integer or not len(length) or int(length.min()) < 1:
            raise EAHConfigError(
                f"prompt length of shape {tuple(length.shape)} and {length.dtype}; it is an int "
                "from 1, or an integer tensor of shape (batch,) of such"
            )
        found = PromptLength(length[:, None], int(length.min()), int(length.max()))
    elif is_int(length) and length >= 1:
        found = PromptLength(torch.full((1, 1), length), length, length)
    else:
        raise EAHConfigError(f"prompt length {length!r}; it is an int from 1, or one per prompt")
    with set_scoped(sessions_of(transformers_model(model)), "prompt_length", found):
        yield


@contextmanager
def sharing_prefix(model: nn.Module, prefix: SharedPrefix) -> Iterator[None]:
    """Run batches of prompts with a cached prefix in a `with` block; see `eah.prefix`.

    A pass without a cache runs whole prompts and fills the prefix's sums. A pass of more than one
    token on a cache continues from the prefix and uses them.
    """
    with set_scoped(sessions_of(model), "prefix", prefix):
        yield


def sessions_of(model: nn.Module) -> list[Session]:
    """Return the distinct sessions of a model's patched layers."""
    states = [module.__dict__.get(STATE) for module in model.modules()]
    return list({id(s.session): s.session for s in states if s is not None}.values())
