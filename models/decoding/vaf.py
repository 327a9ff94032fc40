"""VAF: visual amplification fusion, "ClearSight" (arXiv 2503.13107).

In the middle layers, rows after the image multiply their scores on image tokens by `enhance` and
their scores on the tokens before the image (the system message) by `suppress`, before the softmax.
Scaling a score is the same as scaling its key, so the model's own kernel runs on scaled keys.
Follows the authors' `visaug/inference/AttnAdapter.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.base import MAX_FACTOR, check_layer_setting, check_number, check_switch


@dataclass(frozen=True, slots=True)
class Vaf(AttentionMethod):
    """VAF with its settings.

    Attributes:
        layers: Changed layers.
        enhance: Factor on scores on image tokens; 1 for no change.
        suppress: Factor on scores on tokens before the image; 1 for no change.
        signed: Whether the score itself is multiplied, as in the authors' code: an image token with
            a negative score then gets less attention. Otherwise the score changes by (factor - 1)
            times its absolute value.
    """

    title = "VAF"
    layers: tuple[int, ...] = tuple(range(9, 15))
    enhance: float = 1.15
    suppress: float = 0.95
    signed: bool = True

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_layer_setting(self.layers)
        check_number("enhance", self.enhance, low=0, high=MAX_FACTOR)
        check_number("suppress", self.suppress, low=0, high=MAX_FACTOR)
        check_switch("signed", self.signed)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.enhance == self.suppress == 1

    @property
    def rows(self) -> ChangedRows:
        """The rows after the image."""
        return ChangedRows.AFTER_IMAGE

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers to change."""
        return self.layers

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with scaled scores, shape (R, n, H, D)."""
        before = rows.columns < rows.starts[:, None]  # (R, K)
        factor = torch.where(before, self.suppress, 1.0)
        factor = torch.where(rows.image, self.enhance, factor)
        if self.signed:
            key = rows.call.key * factor[:, None, :, None].to(rows.call.key.dtype)
            return rows.call.replace(key=key).run()[0][:, -rows.count :]
        scores = rows.scores()  # (R, H, n, K)
        scaled = scores + (factor[:, None, None] - 1) * scores.abs()
        return rows.output(rows.weights(scaled))
