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
from functools import partial
from typing import Final

import torch
from torch import nn
from transformers import LogitsProcessorList

from models.decoding.base import MOST, DecodingMethod, checked, checked_layers
from models.decoding.early_layers import EarlyLayers, EarlyScores, Published, chosen_layers
from models.generation import Decoding

PUBLISHED: Final = Published(depth=32, layers=range(20, 29))


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
        checked_layers(self.layers, ("published",))
        checked("alpha", self.alpha, low=0, high=MOST)
        checked("top_p", self.top_p, low=0, high=1)
        checked("top_k", self.top_k, low=1)
        if type(self.top_k) is not int:
            raise ValueError(f"top_k={self.top_k!r}, but it must be a whole number")

    @property
    def shares_prefix(self) -> bool:
        """Its prompts are run as they are."""
        return True

    def check(self, decoding: Decoding) -> None:
        """Refuse no way to choose tokens."""

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that lacks the layers, or what reads them.

        Raises:
            MethodError: If one is not below the last layer, or none is published for the depth.
        """
        self.early_layers(EarlyLayers(model, self.title).depth)

    def early_layers(self, depth: int) -> list[int]:
        """Return the layers to choose from in a model of some depth; errors as in `check_model`."""
        return chosen_layers(self.title, self.layers, PUBLISHED, depth)

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
            yield LogitsProcessorList([EarlyScores(early, layers, partial(corrected, method=self))])


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
