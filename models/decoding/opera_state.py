"""OPERA's state of one prompt: penalties of candidates, and rollbacks.

Axes: N beams, C candidates, T tokens of the response so far, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch

from models.decoding.beams import Beams, Continuations
from models.decoding.opera_settings import OperaSettings

HISTORY = 512  # steps whose locations are counted
SHORT = 10  # with at most this many columns, the penalty uses attention on the image instead
FIRST_LOCATION = 10  # no rollback to earlier locations
REJECTED = -999.0  # score of excluded tokens
TINY = 1e-7  # keeps products within float16


@dataclass(slots=True)
class OperaState:
    """One prompt under OPERA.

    Attributes:
        settings: OPERA's settings.
        beams: Finished answers.
        ids: Tokens of the open beams, shape (N, T).
        beam_scores: Sums of log probabilities, shape (N,).
        products: Per column of the local block, the product of the scaled attention from the
            column's own row downwards, shape (N, T), float32.
        done: Whether the answer is final.
        rollbacks: Number of rollbacks.
    """

    settings: OperaSettings
    beams: Beams
    ids: torch.Tensor
    beam_scores: torch.Tensor
    products: torch.Tensor
    done: bool = False
    rollbacks: int = 0
    _locations: deque[torch.Tensor] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _finished: list[Beams] = field(default_factory=list)
    _chosen: list[Continuations] = field(default_factory=list)
    _rows: list[torch.Tensor] = field(default_factory=list)
    _rejected: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    _redo: int | None = None

    def add_row(self, row: torch.Tensor) -> None:
        """Multiply the row of the newest token into the products.

        Args:
            row: Attention on the response's tokens, normalised, shape (N, T).
        """
        self._rows.append(row)
        self.products = self._extend_products(row[:, None])[:, 0]

    def _extend_products(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the products with one more row, which also starts a column, (N, C, T + 1)."""
        scaled = rows.float() * self.settings.scale_factor
        columns = torch.ones_like(scaled)
        columns[..., : self.products.shape[1]] = self.products[:, None]
        return columns * scaled

    def penalise(
        self,
        logits: torch.Tensor,
        candidates: torch.Tensor,
        local: torch.Tensor,
        on_image: torch.Tensor,
    ) -> torch.Tensor | None:
        """Return the scores to choose from, or None if the prompt rolls back instead.

        Args:
            logits: Shape (N, V).
            candidates: Tokens with the largest logits, shape (N, C).
            local: Each candidate's attention on the response and itself, normalised over all its
                visible keys, shape (N, C, T + 1).
            on_image: Each candidate's attention on the image tokens, shape (N, C).
        """
        scores = (TINY * self._extend_products(local)).to(self.settings.score_dtype)
        largest, location = scores.max(-1)  # (N, C, T + 1) -> (N, C)
        columns = local.shape[-1]
        penalty = -on_image if columns <= SHORT else largest.to(logits.dtype)
        kept = logits.gather(1, candidates) - self.settings.penalty_weights * penalty
        self._locations.append(location.mode(-1).values)  # (N,)
        self._finished.append(self.beams.copy())
        position = self._rollback_position()
        if position is not None:
            self._roll_back(position)
            return None
        return torch.full_like(logits, REJECTED).scatter(1, candidates, kept)

    def _rollback_position(self) -> int | None:
        """Return the response position to roll back to; None for no rollback."""
        history = torch.stack(list(self._locations))  # (steps, N)
        location = int(history[-1].mode().values)
        often = ((history == location).sum(0) > self.settings.threshold).all()
        if location < FIRST_LOCATION or not bool(often):
            return None
        for position in (location + 1, location):
            if len(self._rejected.get(position, ())) < self.settings.num_attn_candidates:
                return position if position < len(self._chosen) else None
        return None

    def _roll_back(self, position: int) -> None:
        """Return to the state before the token at a position was chosen, and reject the choice."""
        chosen = self._chosen[position]
        self._rejected.setdefault(position, []).append((chosen.beams, chosen.tokens))
        dropped = len(self._finished) - position - 1
        for _ in range(min(dropped, len(self._locations))):
            self._locations.pop()
        self.beams = self._finished[position].copy()
        del self._finished[position + 1 :]
        del self._chosen[position:]
        self._restore()
        self._redo = position
        self.rollbacks += 1

    def _restore(self) -> None:
        """Reconstruct the open beams from the recorded choices, step by step."""
        rows, self._rows = self._rows, []
        steps = len(self._chosen)
        ancestors = torch.arange(self.beams.width, device=self.ids.device)
        tokens, mine = [], []
        for step in reversed(range(steps)):
            tokens.append(self._chosen[step].tokens[ancestors])
            mine.append(rows[step][ancestors])
            ancestors = self._chosen[step].beams[ancestors]
        self.ids = torch.stack(tokens[::-1], dim=1)
        self.beam_scores = self._chosen[-1].scores
        self.products = self.products[:, :0]
        for row in mine[::-1]:
            self.products = self._extend_products(row[:, None])[:, 0]
        self._rows = rows[:steps]

    def exclude_rejected(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores after a rollback, with the rejected tokens excluded.

        Args:
            logits: Logits after the rollback, shape (N, V).
        """
        assert self._redo is not None, "no rollback was started"
        lowered = logits - (logits.min() - REJECTED)
        for beams, tokens in self._rejected[self._redo]:
            lowered[beams, tokens] = REJECTED
        self._redo = None
        return lowered

    def advance(self, log_probs: torch.Tensor, max_new_tokens: int) -> Continuations:
        """Choose the next token of each beam.

        Args:
            log_probs: Processed log probabilities, shape (N, V).
            max_new_tokens: Length at which the answer is cut off.
        """
        scores = log_probs + self.beam_scores[:, None]
        chosen = self.beams.advance(scores, self.ids)
        length = self.ids.shape[1] + 1
        best = float(scores.max())
        self._chosen.append(chosen)
        self.ids = torch.cat([self.ids[chosen.beams], chosen.tokens[:, None]], dim=1)
        self.beam_scores = chosen.scores
        self.products = self.products[chosen.beams]
        self.done = self.beams.is_done(best, length)
        if not self.done and length >= max_new_tokens:
            self.beams.cut_off(self.beam_scores, self.ids)
            self.done = True
        return chosen
