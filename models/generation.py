"""What is asked of a model, what it is given, and what it returns.

Axes: B batch, S prompt positions, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

PAD: Final = 0


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen: greedy by default, beams, or nucleus sampling.

    `top_p` and `temperature` are the reference wrappers' values and count only when sampling.
    """

    max_new_tokens: int = 512
    num_beams: int = 1
    do_sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers once."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}, but at least 1 is needed")
        if self.num_beams < 1:
            raise ValueError(f"num_beams={self.num_beams}, but at least 1 is needed (1 is greedy)")


class Answer(NamedTuple):
    """A stripped answer.

    Attributes:
        text: What the model said.
        finished: False where `max_new_tokens` came before its end.
        tokens: Number of generated tokens, EOS and what was cut off included.
    """

    text: str
    finished: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """A left-padded batch of prompts as embeddings."""

    embeds: torch.Tensor  # (B, S, E)
    attention_mask: torch.Tensor  # (B, S), 1 where there is a token
    image_mask: torch.Tensor  # (B, S), True at image tokens


def padded_left(rows: Sequence[torch.Tensor], spans: Sequence[tuple[int, int]]) -> EncodedPrompts:
    """Put prompts into one batch, padded on the left.

    Args:
        rows: Embeddings of each prompt, shape (S, E) with an S of its own.
        spans: Image tokens [start, stop) of each prompt; empty where there are none.
    """
    length = max(map(len, rows))
    embeds = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
    attention_mask = torch.zeros(len(rows), length, dtype=torch.long, device=embeds.device)
    image_mask = torch.zeros(len(rows), length, dtype=torch.bool, device=embeds.device)
    for index, (row, (start, stop)) in enumerate(zip(rows, spans, strict=True)):
        pad = length - len(row)
        embeds[index, pad:] = row
        attention_mask[index, pad:] = 1
        image_mask[index, pad + start : pad + stop] = True
    return EncodedPrompts(embeds, attention_mask, image_mask)
