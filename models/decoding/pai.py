"""PAI: paying more attention to the image (arXiv 2407.21771).

In every layer but the first two, the newest token's attention scores on image tokens grow by alpha
times their size before the softmax (equation 3); and the scores of a token are contrasted with
those of the prompt without its image (equation 5).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from models.decoding.base import Contrast, DecodingMethod, Request, checked
from models.decoding.image_attention import boosted
from models.decoding.loop import decode, plausible
from models.generation import concat_prompts

PLAUSIBLE = 0.1  # the authors' constant


@dataclass(frozen=True, slots=True)
class Pai(DecodingMethod):
    """PAI with its settings.

    Attributes:
        alpha: Growth of attention scores on image tokens, relative to their size; 0 leaves them.
        gamma: Of the contrast gamma log p - (gamma - 1) log p without the image; 1 for none.
        start_layer: First layer, counted from 0; all from there on are changed.
    """

    contrast = Contrast.TEXT
    scores_first_token = True
    alpha: float = 0.2
    gamma: float = 1.1
    start_layer: int = 2

    def __post_init__(self) -> None:
        """Check the numbers once."""
        checked("alpha", self.alpha, low=0)
        checked("gamma", self.gamma, low=1)
        checked("start_layer", self.start_layer, low=0)

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded with 0 behind EOS."""
        assert request.contrast is not None, "PAI without the prompts' text"
        both = self.gamma != 1
        prompts = (
            concat_prompts([request.embedded(), request.contrast]) if both else request.embedded()
        )
        assert prompts.image_mask is not None, "prompts as embeddings come with their mask"

        def combine(_: object, logits: torch.Tensor) -> torch.Tensor:
            if not both:
                return logits
            image, text = logits.log_softmax(-1).chunk(2)
            return plausible(self.gamma * image - (self.gamma - 1) * text, image, PLAUSIBLE)

        boost = (
            boosted(request.model, self.start_layer, prompts.image_mask, self.alpha)
            if self.alpha
            else nullcontext()
        )
        with boost:
            return decode(request, prompts, combine)
