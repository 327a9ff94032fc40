"""MiniGPT-4 (Vicuna-7B v0), from its original files or the folder that they are converted to.

The same tower and Q-Former as InstructBLIP's, without text: `Blip2ForConditionalGeneration` with
Vicuna as its language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, StoppingCriteriaList

from models.blip import BlipVLM
from models.decoding.stopping import StopAtText
from models.generation import Decoding
from models.precision import EVA, FULL_AUTOCAST, HALF_AUTOCAST, Precision
from models.sources import Family

STOP = "###"


class MiniGPT4(BlipVLM):
    """MiniGPT-4 with the reference wrapper's prompt, which has no system message."""

    family = Family("minigpt4", "blip-2", ("llama",))
    model_class: ClassVar[Any] = Blip2ForConditionalGeneration
    config_class: ClassVar[Any] = Blip2Config
    # The wrapper encodes pictures under autocast from the tower to the projection.
    mixed = Precision(
        "mixed",
        {
            "vision": EVA,
            "qformer": FULL_AUTOCAST,
            "projector": FULL_AUTOCAST,
            "llm": HALF_AUTOCAST,
        },
    )
    stop_text = STOP
    answer_mark = "Assistant:"

    @torch.inference_mode()
    def image_embeds(self, features: torch.Tensor, questions: Sequence[str]) -> torch.Tensor:
        """Return what the Q-Former takes from pictures, shape (B, I, E)."""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        with self.precision.parts["qformer"].context(queries.device):
            states = self.model.qformer(
                query_embeds=queries,
                encoder_hidden_states=features.to(queries.device, queries.dtype),
            ).last_hidden_state
        return self._projected(states)

    def stopping(self, decoding: Decoding) -> StoppingCriteriaList:
        """Stop at "###", with which Vicuna v0 begins the next turn instead of ending with EOS.

        The reference wrapper goes on and cuts afterwards, which is the same for one beam. Several
        beams are ranked by what follows, so that they must go on here as well.
        """
        if decoding.num_beams > 1:
            return StoppingCriteriaList()
        return StoppingCriteriaList([StopAtText(STOP, self.tokenizer)])
