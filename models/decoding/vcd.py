"""VCD: visual contrastive decoding (arXiv 2311.16922).

The next token's scores are contrasted with its scores for the same picture with diffusion noise
(equations 2 to 4 of the paper).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.decoding.base import Contrast, DecodingMethod, Request, check_number
from models.decoding.loop import decode, mask_implausible
from models.generation import concat_prompts

STEPS = 1000


@dataclass(frozen=True, slots=True)
class Vcd(DecodingMethod):
    """VCD with its settings.

    Attributes:
        alpha: Weight of the contrast: (1 + alpha) logits - alpha logits of the noised picture.
        beta: Tokens below this share of the likeliest token's probability are excluded.
        noise_step: Diffusion step, of 1000.
        seed: Seed of the noise, which differs between pictures.
    """

    title = "VCD"
    contrast = Contrast.NOISED_IMAGE
    scores_first_token = True
    alpha: float = 1.0
    beta: float = 0.1
    noise_step: int = 500
    seed: int = 42

    def __post_init__(self) -> None:
        """Check the numbers once."""
        check_number("alpha", self.alpha, low=0)
        check_number("beta", self.beta, low=0, high=1)
        check_number("noise_step", self.noise_step, low=0, high=STEPS - 1)

    @property
    def can_use_cached_prefix(self) -> bool:
        """Its prompts are run unchanged."""
        return True

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded with 0 after EOS."""
        assert request.contrast is not None, "VCD without noised pictures"

        def combine(_: object, logits: torch.Tensor) -> torch.Tensor:
            clear, noised = logits.chunk(2)
            scores = (1 + self.alpha) * clear - self.alpha * noised
            return mask_implausible(scores, clear, self.beta)

        return decode(request, concat_prompts([request.prompts, request.contrast]), combine)

    def add_noise(self, pixels: torch.Tensor, seed: int) -> torch.Tensor:
        """Return pixels with the noise of `noise_step` diffusion steps.

        Args:
            pixels: Normalised, any shape.
            seed: Seed of the noise.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(pixels.shape, generator=generator).to(pixels)
        kept = remaining_variance()[self.noise_step]
        return kept.sqrt() * pixels + (1 - kept).sqrt() * noise


def remaining_variance() -> torch.Tensor:
    """Return the share of a picture's variance that is left after each step, shape (STEPS,).

    The added variances grow as a sigmoid from 1e-5 to 5e-3.
    """
    variances = torch.sigmoid(torch.linspace(-6, 6, STEPS)) * (5e-3 - 1e-5) + 1e-5
    return torch.cumprod(1 - variances, dim=0)
