"""DoLa: decoding by contrasting layers (arXiv 2309.03883).

Each step contrasts the last layer's prediction with that of the early layer that differs most from
it, by Jensen-Shannon divergence. transformers 5 no longer ships DoLa; this runs on all versions,
from the hidden states that any model returns.

Axes: B prompts, L candidate layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from models.decoding.base import (
    DecodingMethod,
    MethodError,
    Request,
    check_layer_setting,
    check_number,
)
from models.decoding.loop import decode, mask_implausible

# Relative to the largest logit: rounding of the same product in half precision.
HEAD_TOLERANCE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Dola(DecodingMethod):
    """DoLa with its settings.

    Attributes:
        layers: Early layers to choose from, 0 being the embeddings; "low" for the even ones of the
            lower half, "high" for those of the upper half.
        relative_top: Tokens below this share of the likeliest token's probability are excluded.
    """

    title = "DoLa"
    scores_first_token = True
    needs_trial = True
    layers: str | tuple[int, ...] = "low"
    relative_top: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_number("relative_top", self.relative_top, low=0, high=1)
        check_layer_setting(self.layers, ("low", "high"))

    @property
    def can_use_cached_prefix(self) -> bool:
        """Its prompts are run unchanged."""
        return True

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model without the layers.

        Raises:
            MethodError: If a layer is not below the last one.
        """
        self.early_layers(_depth(model))

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded with 0 after EOS."""
        head = request.model.get_output_embeddings()
        layers = self.early_layers(_depth(request.model))

        def combine(outputs: Sequence[Any], logits: torch.Tensor) -> torch.Tensor:
            if not outputs:
                raise MethodError(
                    f"DoLa reads hidden states, which the `generate` of "
                    f"{type(request.model).__name__} does not expose; use another method"
                )
            output = outputs[-1]
            device = head.weight.device
            states = [output.hidden_states[i][:, -1].to(device) for i in layers]
            scores = head(torch.stack(states)).float().to(logits.device)  # (L, B, V)
            _check_head(head(output.hidden_states[-1][:, -1].to(device)).to(logits), logits)
            early = scores.log_softmax(-1)
            final = logits.log_softmax(-1)
            return contrast_layers(final, early, self.relative_top)

        return decode(request, request.prompts, combine, hidden_states=True)

    def early_layers(self, depth: int) -> list[int]:
        """Return the early layers of a model with `depth` layers.

        Raises:
            MethodError: If a layer is not below the last one.
        """
        if self.layers == "low":
            return list(range(0, depth // 2, 2))
        if self.layers == "high":
            return list(range(depth // 2, depth, 2))
        chosen = [int(layer) for layer in self.layers]
        if not chosen or not all(0 <= layer < depth for layer in chosen):
            raise MethodError(
                f"layers={chosen}, but early layers are 0..{depth - 1}; choose from these"
            )
        return chosen


def _depth(model: Any) -> int:
    return int(model.config.get_text_config(decoder=True).num_hidden_layers)


def _check_head(own: torch.Tensor, logits: torch.Tensor) -> None:
    """Refuse a model that changes its logits after the output layer.

    Raises:
        MethodError: If they are scaled, capped or computed in another way.
    """
    if (own - logits).abs().max() > HEAD_TOLERANCE * logits.abs().max():
        raise MethodError(
            "DoLa reads early layers with the output layer, but this model scales or caps its "
            "logits after it; use another method"
        )


def contrast_layers(final: torch.Tensor, early: torch.Tensor, share: float) -> torch.Tensor:
    """Return the final log probabilities minus those of the most different early layer.

    Args:
        final: Log probabilities of the last layer, shape (B, V).
        early: Log probabilities of the early layers, shape (L, B, V).
        share: See `mask_implausible`.
    """
    divergence = jensen_shannon(final[None].expand_as(early), early)  # (L, B)
    chosen = divergence.argmax(0)
    premature = early[chosen, torch.arange(final.shape[0], device=final.device)]
    return mask_implausible(final - premature, final, share)


def jensen_shannon(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the divergence of distributions that are log probabilities along the last axis."""
    middle = torch.logaddexp(first, second) - torch.log(torch.tensor(2.0))
    left = (first.exp() * (first - middle)).sum(-1)
    right = (second.exp() * (second - middle)).sum(-1)
    return (left + right) / 2
