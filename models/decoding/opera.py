"""OPERA: over-trust penalty and retrospection-allocation on top of beam search (arXiv 2311.17911).

A token whose column collects attention throughout the response is a summary that the model trusts
more than the image. Candidates that attend to one are penalised, and if all beams keep doing so,
the search rolls back to the token after it and chooses another. Follows the authors'
`generation/utils.py`, which needs a fork of transformers 4.29.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.decoding.base import DecodingMethod, MethodError, Request
from models.decoding.opera_search import opera_search
from models.decoding.opera_settings import OperaSettings
from models.generation import PAD, Decoding


@dataclass(frozen=True, slots=True)
class Opera(OperaSettings, DecodingMethod):
    """OPERA with its settings.

    `Request.first` records the model's own scores: the search penalises the likeliest tokens and
    drops all others, so its scores do not compare "yes" with "no".
    """

    title = "OPERA"
    scores_first_token = True
    needs_embeddings = True
    repeats_prompts = False

    def check(self, decoding: Decoding) -> None:
        """Refuse one beam, and sampling.

        Raises:
            MethodError: Naming what was requested and what is possible.
        """
        if decoding.num_beams < 2 or decoding.do_sample:
            asked = "sampling" if decoding.do_sample else "one beam"
            raise MethodError(
                f"OPERA is a beam search, but {asked} was requested; use --beam 2 or more (the "
                "paper uses --beam 5), without --sample"
            )

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids of the best beams, shape (B, T), padded with 0 after EOS."""
        eos = request.single_eos()
        limit = int(request.config.max_new_tokens)
        rows = []
        for state in opera_search(request, self):
            ids = state.beams.best()
            rows.append(torch.cat([ids, ids.new_tensor([eos])]) if len(ids) < limit else ids)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
