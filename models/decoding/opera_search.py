"""OPERA's search over a batch: forward passes and the rows of their cache.

Every step computes the attention of each beam's likeliest tokens before it chooses one. All
candidates are one forward pass: they follow the beam's tokens, at the same position, and do not see
each other. A second pass runs the chosen token.

The cache only grows at its end. When a prompt rolls back, its old tokens stay in the cache, hidden
by the row's mask, and the tokens that it keeps are recomputed after them; the prompt's keys and
values stay. So each prompt of a batch can roll back independently.

Axes: B prompts, N beams, R = B * N rows, C candidates, S prompt positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import eah
from models.decoding.base import MethodError, Request
from models.decoding.beams import Beams
from models.decoding.last_attention import LastRows, record_last_rows
from models.decoding.opera_settings import OperaSettings
from models.decoding.opera_state import OperaState

CLOSED = -1e9  # score of all beams but the first at the start, where all would be equal


@dataclass(slots=True)
class _Rows:
    """The cached rows of the batch, their visible keys and their positions.

    Attributes:
        cache: Keys and values of all rows.
        visible: Visible keys of each row, shape (R, K) bool.
        positions: Position of each row's next token, shape (R,).
        local: Cache columns of each row's response tokens, in order, one list per prompt.
    """

    cache: Any
    visible: torch.Tensor
    positions: torch.Tensor
    local: list[list[int]]


def opera_search(request: Request, settings: OperaSettings) -> list[OperaState]:
    """Generate with OPERA and return the final state of each prompt."""
    return OperaSearch(request, settings).run()


class OperaSearch:
    """OPERA's search for one batch."""

    watched: LastRows

    def __init__(self, request: Request, settings: OperaSettings) -> None:
        config = request.config
        self.model, self.processors, self.settings = request.model, request.processors, settings
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if settings.num_attn_candidates > vocabulary:
            raise MethodError(
                f"num_attn_candidates={settings.num_attn_candidates}, but the model has "
                f"{vocabulary} tokens; the published number is 5"
            )
        self.width, self.limit = int(config.num_beams), int(config.max_new_tokens)
        self.first = request.first
        prompts = request.require_embeddings()
        self.embeds = prompts.embeds
        self.mask, self.image = prompts.attention_mask.bool(), prompts.image_mask
        device = self.mask.device
        scores = torch.full((self.width,), CLOSED, device=device)
        scores[0] = 0.0
        length_penalty = 1.0 if config.length_penalty is None else float(config.length_penalty)
        self.states = [
            OperaState(
                settings,
                Beams(
                    self.width,
                    length_penalty,
                    request.single_eos(),
                    counted if settings.parity else None,
                ),
                ids=torch.zeros(self.width, 0, dtype=torch.long, device=device),
                beam_scores=scores.clone(),
                products=torch.ones(self.width, 0, device=device),
            )
            for counted in request.counted
        ]

    @torch.inference_mode()
    def run(self) -> list[OperaState]:
        """Generate, and return the final state of each prompt."""
        # A pass over several candidates has several tokens but is not a prefill.
        length = eah.prompt_length(self.model, self.embeds.shape[1])
        with length, record_last_rows(self.model) as self.watched:
            logits = self.prefill(self.embeds)
            while True:
                tokens = self.choose(logits)
                if all(state.done for state in self.states):
                    return self.states
                logits = self._run(tokens)

    def prefill(self, embeds: torch.Tensor) -> torch.Tensor:
        """Run the prompts, once for all beams, and return logits, shape (R, V)."""
        output = self.model(
            inputs_embeds=embeds,
            attention_mask=self.mask.long(),
            position_ids=(self.mask.long().cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        output.past_key_values.batch_repeat_interleave(self.width)
        self.rows = _Rows(
            output.past_key_values,
            self.mask.repeat_interleave(self.width, 0),
            self.mask.sum(-1).repeat_interleave(self.width, 0),
            [[] for _ in self.states],
        )
        logits: torch.Tensor = output.logits[:, -1].float().to(self.mask.device)
        if self.first is not None:
            self.first.record(logits)
        return logits.repeat_interleave(self.width, 0)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose one token for every beam of every prompt; the rows follow the chosen beams.

        Args:
            logits: Of the next token, shape (R, V).
        Returns:
            Tokens, shape (R,); 0 where a prompt is done.
        """
        candidates = logits.topk(self.settings.num_attn_candidates).indices  # (R, C)
        attention = self.attention_of(candidates)  # (R, C, K + C)
        open_prompts = [b for b, state in enumerate(self.states) if not state.done]
        scores = {b: self._penalise(b, logits, candidates, attention) for b in open_prompts}
        back = [b for b in open_prompts if scores[b] is None]
        if back:
            renewed = self._rebuild(back)
            scores |= {b: self.states[b].exclude_rejected(renewed[self._rows_of(b)]) for b in back}
        order = torch.arange(len(logits), device=self.mask.device)
        tokens = torch.zeros_like(order)
        for b, found in scores.items():
            assert found is not None  # exclude_rejected returns scores
            state, rows = self.states[b], self._rows_of(b)
            log_probs = self.processors(state.ids, found.log_softmax(-1))
            chosen = state.advance(log_probs, self.limit)
            order[rows], tokens[rows] = order[rows][chosen.beams], chosen.tokens
        self.rows.cache.reorder_cache(order)
        self.rows.visible = self.rows.visible[order]
        return tokens

    def _rows_of(self, b: int) -> slice:
        """Return the rows of a prompt's beams."""
        return slice(b * self.width, (b + 1) * self.width)

    def _penalise(
        self, b: int, logits: torch.Tensor, candidates: torch.Tensor, attention: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the penalised scores of a prompt's beams, shape (N, V); None if it rolls back."""
        rows, keys = self._rows_of(b), self.rows.visible.shape[1]
        seen = attention[rows, :, :keys]
        own = attention[rows, :, keys:].diagonal(dim1=1, dim2=2)  # (N, C)
        total = attention[rows].sum(-1, keepdim=True)  # (N, C, 1)
        local = torch.cat([seen[..., self.rows.local[b]], own[..., None]], dim=-1) / total
        on_image = (seen[..., self.image[b].nonzero().flatten()] / total).sum(-1)
        return self.states[b].penalise(logits[rows], candidates[rows], local, on_image)

    def _run(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run a token per row, add its attention row to each prompt, and return logits, (R, V)."""
        column = self.rows.visible.shape[1]
        self.rows.visible = torch.nn.functional.pad(self.rows.visible, (0, 1), value=True)
        output = self._forward(
            tokens[:, None], self.rows.positions[:, None], self.rows.visible[:, None, None, :]
        )
        rows = self.watched.take()[:, 0].to(self.mask.device)  # (R, K)
        self.rows.positions = self.rows.positions + 1
        for b, state in enumerate(self.states):
            if not state.done:
                self.rows.local[b].append(column)
                mine = rows[self._rows_of(b)]
                state.add_row(mine[:, self.rows.local[b]] / mine.sum(-1, keepdim=True))
        logits: torch.Tensor = output.logits[:, -1].float().to(self.mask.device)
        return logits

    def attention_of(self, candidates: torch.Tensor) -> torch.Tensor:
        """Return the attention rows of candidates, each after its row's tokens, (R, C, K + C)."""
        count = candidates.shape[1]
        apart = torch.eye(count, dtype=torch.bool, device=candidates.device)
        visible = torch.cat(
            [
                self.rows.visible[:, None].expand(-1, count, -1),
                apart.expand(len(candidates), -1, -1),
            ],
            dim=-1,
        )
        self._forward(candidates, self.rows.positions[:, None].expand(-1, count), visible[:, None])
        self.rows.cache.crop(-count)
        return self.watched.take().to(self.mask.device)

    def _rebuild(self, prompts: list[int]) -> torch.Tensor:
        """Rerun the tokens that prompts keep after a rollback, and return logits, shape (R, V).

        Rows of other prompts get as many hidden positions.
        """
        longest = max(self.states[b].ids.shape[1] for b in prompts)
        count, device = len(self.rows.visible), self.mask.device
        tokens = torch.zeros(count, longest, dtype=torch.long, device=device)
        positions = torch.zeros(count, longest, dtype=torch.long, device=device)
        fresh = torch.zeros(count, longest, dtype=torch.bool, device=device)
        start = self.rows.visible.shape[1]
        for b in prompts:
            rows, ids = self._rows_of(b), self.states[b].ids
            length, prompt = ids.shape[1], int(self.mask[b].sum())
            tokens[rows, longest - length :] = ids
            fresh[rows, longest - length :] = True
            positions[rows, longest - length :] = prompt + torch.arange(length, device=device)
            self.rows.visible[rows] = False
            self.rows.visible[rows, : self.mask.shape[1]] = self.mask[b]
            self.rows.local[b] = list(range(start + longest - length, start + longest))
            self.rows.positions[rows] = prompt + length
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        own = torch.eye(longest, dtype=torch.bool, device=device)  # every row must see a key
        among = (causal & fresh[:, None, :]) | own
        before = self.rows.visible[:, None].expand(-1, longest, -1)
        output = self._forward(
            tokens, positions, torch.cat([before, among], -1)[:, None], rows=False
        )
        self.rows.visible = torch.cat([self.rows.visible, fresh], dim=1)
        logits: torch.Tensor = output.logits[:, -1].float().to(self.mask.device)
        return logits

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        visible: torch.Tensor,
        *,
        rows: bool = True,
    ) -> Any:
        """Run tokens after the cached ones.

        Args:
            ids: Shape (R, Q).
            positions: Positions, shape (R, Q).
            visible: Visible keys of each token, shape (R, 1, Q, K + Q) bool.
            rows: Whether the last layer records its attention rows.
        """
        dtype = self.model.dtype
        hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        hidden.masked_fill_(~visible, torch.finfo(dtype).min)
        self.watched.wanted = rows
        output = self.model(
            input_ids=ids,
            attention_mask=hidden,
            position_ids=positions,
            past_key_values=self.rows.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.watched.wanted = False
        return output
