"""Stop a row of a batch when its answer contains the stop text."""

from __future__ import annotations

from typing import Any

import torch
from transformers import StoppingCriteria

from models.tokenizer import ChunkTokenizer


class StopAtText(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Stops a row whose last tokens spell a text.

    Only the last tokens are decoded: a token adds at least one byte, so a new occurrence of a text
    of n bytes is within the last n tokens.
    """

    def __init__(self, text: str, tokenizer: ChunkTokenizer) -> None:
        """Store the text."""
        self._text = text
        self._tokenizer = tokenizer
        self._window = len(text.encode()) + 1

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Return whether each row is finished, shape (B,) bool."""
        tails = input_ids[:, -self._window :].tolist()
        found = [self._text in self._tokenizer.decode(ids) for ids in tails]
        return torch.tensor(found, device=input_ids.device)
