"""DeCo: dynamic correction decoding, "MLLM can see?" (arXiv 2410.11779).

Early layers often know an object that the last one forgets. The early layer that is surest of one
of the likeliest next tokens is found, and its logits are added to the model's. Follows `generate`
in the authors' fork of transformers 4.31.

Axes: R batch rows, L early layers, V vocabulary, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from transformers import LogitsProcessor, LogitsProcessorList

from models.decoding.base import DecodingMethod, MethodError, checked
from models.decoding.early_layers import EarlyLayers
from models.generation import Decoding

PUBLISHED_DEPTH: Final = 32
PUBLISHED_LAYERS: Final = tuple(range(20, 29))
NORMALISED: Final = 1e-3  # a log of a sum of probabilities that is 0 but for rounding


@dataclass(frozen=True, slots=True)
class Deco(DecodingMethod):
    """DeCo with its settings.

    Attributes:
        layers: Early layers, counted as hidden states are: 0 is the embeddings, and i what layer
            i - 1 leaves. "published" for 20 to 28 of 32.
        alpha: Weight of the early layer's logits, times its probability.
        top_p: Mass of the likeliest tokens that are candidates; all others are ruled out.
        top_k: Most candidates.
    """

    title = "DeCo"
    scores_first_token = True
    is_tried = True
    layers: str | tuple[int, ...] = "published"
    alpha: float = 0.6
    top_p: float = 0.9
    top_k: int = 20

    def __post_init__(self) -> None:
        """Check the settings once."""
        checked("alpha", self.alpha, low=0)
        checked("top_p", self.top_p, low=0, high=1)
        checked("top_k", self.top_k, low=1)
        if isinstance(self.layers, str) and self.layers != "published":
            raise ValueError(f"layers={self.layers!r}, but they are 'published' or numbers")

    @property
    def shares_prefix(self) -> bool:
        """Its prompts are run as they are."""
        return True

    def check(self, decoding: Decoding) -> None:
        """Refuse no way to choose tokens."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that lacks the layers, or what reads them.

        Raises:
            MethodError: Naming them.
        """
        self.early_layers(EarlyLayers(model, self.title).depth)

    def early_layers(self, depth: int) -> list[int]:
        """Return the layers to choose from in a model of some depth.

        Raises:
            MethodError: If one is not below the last layer, or none is published for the depth.
        """
        if isinstance(self.layers, str):
            if depth != PUBLISHED_DEPTH:
                raise MethodError(
                    f"DeCo's layers {PUBLISHED_LAYERS[0]}..{PUBLISHED_LAYERS[-1]} are published "
                    f"for models of {PUBLISHED_DEPTH} layers, but this one has {depth}; name "
                    f"others: deco@layers={5 * depth // 8}-{7 * depth // 8}"
                )
            return list(PUBLISHED_LAYERS)
        if not self.layers or not all(0 <= layer < depth for layer in self.layers):
            raise MethodError(f"layers={list(self.layers)}, but early layers are 0..{depth - 1}")
        return list(self.layers)

    @contextmanager
    def applied(
        self, model: nn.Module, image: torch.Tensor | None = None
    ) -> Iterator[LogitsProcessorList]:
        """See a model's early layers in a `with` block of this thread.

        Args:
            model: A transformers model with a decoder that EAH knows.
            image: Not used.
        Returns:
            What changes the scores of a token, for `generate`.
        Raises:
            MethodError: As `check_model`.
        """
        early = EarlyLayers(model, self.title)
        layers = self.early_layers(early.depth)
        with early.watched(layers):
            yield LogitsProcessorList([_Correction(self, early, layers)])


class _Correction(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Adds what an early layer says to scores; log probabilities, as of beams, stay such."""

    def __init__(self, method: Deco, early: EarlyLayers, layers: list[int]) -> None:
        self._method, self._early, self._layers = method, early, layers

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return corrected scores, shape (R, V)."""
        early = self._early.logits(self._layers, scores)
        found = corrected(scores, early, self._method)
        total = scores.float().logsumexp(-1, keepdim=True)
        return torch.where(total.abs() < NORMALISED, found.log_softmax(-1), found)


def corrected(final: torch.Tensor, early: torch.Tensor, method: Deco) -> torch.Tensor:
    """Return the final logits plus those of the early layer that is surest of a candidate.

    Args:
        final: Logits of the last layer, shape (R, V).
        early: Logits of the early layers, shape (L, R, V).
        method: DeCo's settings.
    Returns:
        Shape (R, V), -inf outside the candidates.
    """
    shares, ids = final.softmax(-1).topk(min(method.top_k, final.shape[-1]))  # (R, k)
    mass = shares.cumsum(-1)
    # The one whose mass reaches top_p, with those before it, is the last.
    count = torch.searchsorted(mass, torch.full_like(mass[:, :1], method.top_p)) + 1  # (R, 1)
    ranks = torch.arange(ids.shape[-1], device=ids.device)
    is_candidate = torch.zeros_like(final, dtype=torch.bool).scatter(-1, ids, ranks < count)
    sure = early.softmax(-1).masked_fill(~is_candidate, 0).amax(-1)  # (L, R)
    surest, anchor = sure.max(0)  # (R,)
    added = early[anchor, torch.arange(len(final), device=final.device)]  # (R, V)
    return (final + method.alpha * surest[:, None] * added).masked_fill(~is_candidate, -torch.inf)
