"""Beam search of one prompt: open beams, finished answers, and when to stop.

Scores are sums of log probabilities; a finished answer's score is divided by its length to the
power of the length penalty. Axes: N beams, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch


class Continuations(NamedTuple):
    """How the open beams continue: beam, token and score of each, (N,)."""

    beams: torch.Tensor
    tokens: torch.Tensor
    scores: torch.Tensor


@dataclass(slots=True)
class Beams:
    """The finished answers of one prompt.

    Attributes:
        width: Number of beams N.
        length_penalty: Power of the length in a finished answer's score.
        eos: Id that ends an answer.
        counted: Prompt tokens that count in every length while EOS does not, as in transformers
            4.29.2; None as in current transformers, where EOS counts and prompt tokens do not.
        finished: (score, tokens) of the best finished answers, without EOS.
    """

    width: int
    length_penalty: float
    eos: int
    counted: int | None
    finished: list[tuple[float, torch.Tensor]] = field(default_factory=list)

    def advance(self, scores: torch.Tensor, ids: torch.Tensor) -> Continuations:
        """Choose how the open beams continue, and store those that end.

        Args:
            scores: Of every continuation, shape (N, V).
            ids: Tokens of the open beams, shape (N, T).
        """
        vocabulary = scores.shape[-1]
        top, indices = scores.view(-1).topk(2 * self.width)
        chosen = []
        rows = zip(top.tolist(), indices.tolist(), strict=True)
        for rank, (score, index) in enumerate(rows):
            beam, token = divmod(index, vocabulary)
            if token != self.eos:
                chosen.append((beam, token, rank))
            elif rank < self.width:
                length = len(ids[beam]) + (1 if self.counted is None else self.counted)
                self._finish(score, ids[beam], length)
            if len(chosen) == self.width:
                break
        beams, tokens, ranks = (
            torch.tensor(values, device=scores.device) for values in zip(*chosen, strict=True)
        )
        return Continuations(beams, tokens, top[ranks])

    def is_done(self, best: float, length: int) -> bool:
        """Return whether no open beam can still beat the finished answers.

        Args:
            best: Highest score of an open beam.
            length: Tokens of the open beams.
        """
        if len(self.finished) < self.width:
            return False
        attainable = self._normalise(best, length + (self.counted or 0))
        return min(score for score, _ in self.finished) >= attainable

    def cut_off(self, scores: torch.Tensor, ids: torch.Tensor) -> None:
        """Store the open beams as finished, because the length limit is reached."""
        for score, row in zip(scores.tolist(), ids, strict=True):
            self._finish(score, row, len(row) + (self.counted or 0))

    def best(self) -> torch.Tensor:
        """Return the best finished answer's tokens."""
        return max(self.finished, key=lambda answer: answer[0])[1]

    def copy(self) -> Beams:
        """Return a copy, for rollbacks."""
        return Beams(self.width, self.length_penalty, self.eos, self.counted, list(self.finished))

    def _normalise(self, score: float, length: int) -> float:
        return float(score / length**self.length_penalty)

    def _finish(self, score: float, ids: torch.Tensor, length: int) -> None:
        """Keep an answer if it is among the best."""
        self.finished.append((self._normalise(score, length), ids.clone()))
        if len(self.finished) > self.width:
            self.finished.remove(min(self.finished, key=lambda answer: answer[0]))
