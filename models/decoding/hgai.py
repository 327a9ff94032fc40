"""HGAI: heads guided attention intervention, "Devils in Middle Layers" (arXiv 2411.16724).

In the middle layers, the newest token's scores on image tokens are raised before the softmax by
alpha times their mean absolute value over all heads of the layer, so that heads that attend
elsewhere are drawn to the image regions of the others. Follows the authors' `modify_attention.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.base import MAX_FACTOR, check_layer_setting, check_number, check_switch


@dataclass(frozen=True, slots=True)
class Hgai(AttentionMethod):
    """HGAI with its settings.

    Attributes:
        layers: Changed layers.
        alpha: Factor on the raise of the scores on image tokens; 0 for no change.
        causal: False lets all rows of a prompt see the whole prompt in these layers. The authors'
            code does this with its pinned versions: transformers leaves the causal mask to the
            sdpa kernel, which their code replaces.
    """

    title = "HGAI"
    layers: tuple[int, ...] = tuple(range(5, 19))
    alpha: float = 0.5
    causal: bool = True

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_layer_setting(self.layers)
        check_number("alpha", self.alpha, low=0, high=MAX_FACTOR)
        check_switch("causal", self.causal)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.alpha == 0 and self.causal

    @property
    def is_causal(self) -> bool:
        """Whether attention stays causal."""
        return self.causal

    @property
    def rows(self) -> ChangedRows:
        """The last row."""
        return ChangedRows.LAST

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers to change."""
        return self.layers

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with raised scores, shape (R, n, H, D)."""
        scores = rows.scores()  # (R, H, n, K)
        growth = self.alpha * scores.abs().mean(1, keepdim=True)
        raised = scores + growth * rows.image[:, None, None]
        return rows.output(rows.weights(raised))
