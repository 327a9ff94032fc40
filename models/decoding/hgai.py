"""HGAI: heads guided attention intervention, "Devils in Middle Layers" (arXiv 2411.16724).

In the middle layers, the newest token's scores on image tokens grow by alpha times the mean of
their sizes over all heads of the layer, before the softmax: heads that look elsewhere are drawn to
where the others look. Follows the authors' `modify_attention.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import Held, Rows
from models.decoding.base import MOST, checked, checked_layers, checked_switch


@dataclass(frozen=True, slots=True)
class Hgai(AttentionMethod):
    """HGAI with its settings.

    Attributes:
        layers: Layers that are changed.
        alpha: Growth of the scores on image tokens; 0 leaves them.
        causal: False lets all rows of a prompt see the whole prompt in these layers. The authors'
            code does so with the versions that it pins, where transformers leaves the causal mask
            to the sdpa kernel, which the code replaces.
    """

    title = "HGAI"
    layers: tuple[int, ...] = tuple(range(5, 19))
    alpha: float = 0.5
    causal: bool = True

    def __post_init__(self) -> None:
        """Check the settings once."""
        checked_layers(self.layers)
        checked("alpha", self.alpha, low=0, high=MOST)
        checked_switch("causal", self.causal)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.alpha == 0 and self.causal

    @property
    def is_causal(self) -> bool:
        """Whether rows see what is before them only."""
        return self.causal

    @property
    def rows(self) -> Held:
        """The last row."""
        return Held.LAST

    def held_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers that are changed."""
        return self.layers

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with raised scores, shape (R, n, H, D)."""
        scores = rows.scores()  # (R, H, n, K)
        growth = self.alpha * scores.abs().mean(1, keepdim=True)
        raised = scores + growth * rows.image[:, None, None]
        return rows.output(rows.weights(raised))
