"""The probability of "yes" against "no" as the first token of an answer.

It costs no forward pass, because the first token's scores are computed anyway. Only tokens that
spell one of the two words count: p_yes = P(yes ids) / (P(yes ids) + P(no ids)).

Axes: B prompts, V vocabulary.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Final

import torch
from transformers import LogitsProcessor

from models.tokenizer import ChunkTokenizer

SPACE: Final = "▁"
WORDS: Final = ("yes", "no")
# Bounds of p_yes for finite scores: 0 and 1 mean that one word is excluded. Log-odds are between
# -36.7 and 36.7.
SMALLEST: Final = sys.float_info.epsilon / 2
LARGEST: Final = 1.0 - SMALLEST


@dataclass(frozen=True, slots=True)
class YesNoIds:
    """The tokens that spell "yes" and those that spell "no".

    Tokens that only begin a word ("Y", "ye", "N") count for neither, since other words begin with
    them as well.

    Attributes:
        yes: Tokens by id, in any casing, with or without a leading space.
        no: Likewise.
    """

    yes: dict[int, str]
    no: dict[int, str]

    @property
    def missing(self) -> str | None:
        """The word that no token spells; None if both have one."""
        return next((word for word in WORDS if not getattr(self, word)), None)

    def as_record(self) -> dict[str, dict[str, str]]:
        """Return the tokens by id, for a JSON file."""
        return {word: {str(i): p for i, p in getattr(self, word).items()} for word in WORDS}


def yes_no_ids(tokenizer: ChunkTokenizer) -> YesNoIds:
    """Return the tokens of a vocabulary that spell "yes" or "no"."""
    found: dict[str, dict[int, str]] = {word: {} for word in WORDS}
    for index in range(tokenizer.get_piece_size()):
        piece = tokenizer.id_to_piece(index)
        word = piece.removeprefix(SPACE).lower()
        if word in found:
            found[word][index] = piece
    return YesNoIds(**found)


class FirstToken:
    """Records the scores of "yes" and "no" at the first token of each prompt's answer."""

    def __init__(self, ids: YesNoIds, prompts: int) -> None:
        """Start without scores.

        Args:
            ids: The tokens.
            prompts: Number of prompts B.
        """
        self._ids = ids
        self._prompts = prompts
        self._scores: tuple[torch.Tensor, torch.Tensor] | None = None

    def record(self, scores: torch.Tensor) -> None:
        """Record scores if they are the first; later ones are ignored.

        Args:
            scores: Logits or log probabilities, shape (B, V), or of N equal beams of each prompt
                in a row, (B * N, V).
        """
        if self._scores is not None or self._ids.missing:
            return
        rows = scores[:: len(scores) // self._prompts]  # (B * N, V) -> (B, V)
        yes, no = (
            rows[:, torch.tensor(list(ids), device=rows.device)].double().logsumexp(-1)
            for ids in (self._ids.yes, self._ids.no)
        )
        self._scores = yes, no

    def p_yes(self) -> list[float | None]:
        """Return each prompt's probability of "yes".

        0 and 1 mean that the method excludes one word; None if it excludes both, if no scores were
        recorded, or if the vocabulary lacks a word.
        """
        if self._scores is None:
            return [None] * self._prompts
        return [
            _share(yes, no)
            for yes, no in zip(*(side.tolist() for side in self._scores), strict=True)
        ]


def _share(yes: float, no: float) -> float | None:
    """Return the share of "yes" from the log masses of both, without losing small ones."""
    log_odds = yes - no
    if math.isnan(log_odds):  # -inf against -inf
        return None
    if math.isinf(log_odds):
        return float(log_odds > 0)
    small = math.exp(-abs(log_odds))
    share = 1 / (1 + small) if log_odds >= 0 else small / (1 + small)
    return min(max(share, SMALLEST), LARGEST)


class KeepFirst(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Passes the scores to a `FirstToken` unchanged; must be the first processor."""

    def __init__(self, first: FirstToken) -> None:
        """Store the recorder."""
        self._first = first

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores unchanged."""
        self._first.record(scores)
        return scores
