"""DeCo: dynamic correction decoding, "MLLM can see?" (arXiv 2410.11779).

Early layers often recognise an object that the last layer misses. The early layer that is most
confident of one of the likeliest next tokens is selected, and its logits are added to the model's.
Follows `generate` in the authors' fork of transformers 4.31.

Axes: R batch rows, L early layers, V vocabulary, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import nn
from transformers import LogitsProcessorList

from models.decoding.base import MAX_FACTOR, DecodingMethod, check_layer_setting, check_number
from models.decoding.early_layers import EarlyLayers, EarlyScores, Published, select_layers
from models.generation import Decoding

PUBLISHED: Final = Published(depth=32, layers=range(20, 29))


@dataclass(frozen=True, slots=True)
class Deco(DecodingMethod):
    """DeCo with its settings.

    Attributes:
        layers: Early layers, numbered as hidden states: 0 is the embeddings, i the output of layer
            i - 1. "published" for 20 to 28 of 32.
        alpha: Weight of the early layer's logits, times its probability.
        top_p: Probability mass of the candidates, the likeliest tokens; others are excluded.
        top_k: Largest number of candidates.
    """

    title = "DeCo"
    scores_first_token = True
    needs_trial = True
    layers: str | tuple[int, ...] = "published"
    alpha: float = 0.6
    top_p: float = 0.9
    top_k: int = 20

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_layer_setting(self.layers, ("published",))
        check_number("alpha", self.alpha, low=0, high=MAX_FACTOR)
        check_number("top_p", self.top_p, low=0, high=1)
        check_number("top_k", self.top_k, low=1)
        if type(self.top_k) is not int:
            raise ValueError(f"top_k={self.top_k!r}, but it must be a whole number")

    @property
    def can_use_cached_prefix(self) -> bool:
        """Its prompts are run unchanged."""
        return True

    def check(self, decoding: Decoding) -> None:
        """Accept any decoding."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model without the layers, or without a known norm and output layer.

        Raises:
            MethodError: If a layer is not below the last one, or none is published for the depth.
        """
        self.early_layers(EarlyLayers(model, self.title).depth)

    def early_layers(self, depth: int) -> list[int]:
        """Return the early layers of a model with `depth` layers; errors as in `check_model`."""
        return select_layers(self.title, self.layers, PUBLISHED, depth)

    @contextmanager
    def applied(
        self, model: nn.Module, image: torch.Tensor | None = None
    ) -> Iterator[LogitsProcessorList]:
        """Record a model's early layers in a `with` block of this thread.

        Args:
            model: A transformers model with a decoder that EAH knows.
            image: Not used.
        Returns:
            The logits processor, for `generate`.
        Raises:
            MethodError: As `check_model`.
        """
        early = EarlyLayers(model, self.title)
        layers = self.early_layers(early.depth)
        with early.watch(layers):
            yield LogitsProcessorList(
                [EarlyScores(early, layers, partial(correct_scores, method=self))]
            )


def correct_scores(final: torch.Tensor, early: torch.Tensor, method: Deco) -> torch.Tensor:
    """Return the final logits plus those of the early layer most confident of a candidate.

    Args:
        final: Logits of the last layer, shape (R, V).
        early: Logits of the early layers, shape (L, R, V).
        method: DeCo's settings.
    Returns:
        Shape (R, V), -inf outside the candidates.
    """
    shares, ids = final.softmax(-1).topk(min(method.top_k, final.shape[-1]))  # (R, k)
    mass = shares.cumsum(-1)
    # The last candidate is the token at which the cumulative mass reaches top_p.
    count = torch.searchsorted(mass, torch.full_like(mass[:, :1], method.top_p)) + 1  # (R, 1)
    ranks = torch.arange(ids.shape[-1], device=ids.device)
    is_candidate = torch.zeros_like(final, dtype=torch.bool).scatter(-1, ids, ranks < count)
    sure = early.softmax(-1).masked_fill(~is_candidate, 0).amax(-1)  # (L, R)
    surest, anchor = sure.max(0)  # (R,)
    added = early[anchor, torch.arange(len(final), device=final.device)]  # (R, V)
    return (final + method.alpha * surest[:, None] * added).masked_fill(~is_candidate, -torch.inf)
