"""SPIN: image-guided head suppression (arXiv 2505.16411).

In every layer, each text token keeps the heads with the largest sum of scores on image tokens; the
outputs of the other heads are scaled down. A head's sum of scores is computed as one product, with
the sum of the image's keys. Follows the authors' `attentionSPIN.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.base import check_layer_setting, check_number, check_switch


@dataclass(frozen=True, slots=True)
class Spin(AttentionMethod):
    """SPIN with its settings.

    Attributes:
        layers: Changed layers; "all" for all but EAH's, where all heads have the same map.
        kept: Share of the heads that stay unchanged, rounded down to whole heads.
        scale: Factor on the outputs of the other heads; 0 drops them, 1 leaves them unchanged.
        released: Whether only the last row of the prompt and generated tokens are changed, as in
            the authors' code; the paper changes all text tokens after the image.
        causal: False lets all rows of a prompt see the whole prompt in these layers, as the
            authors' code does on torch 2.1.1 and later (they pin an earlier one); see HGAI.
    """

    title = "SPIN"
    layers: str | tuple[int, ...] = "all"
    kept: float = 0.95
    scale: float = 0.08
    released: bool = False
    causal: bool = True

    def __post_init__(self) -> None:
        """Check the settings once."""
        check_number("kept", self.kept, low=0, high=1)
        check_number("scale", self.scale, low=0, high=1)
        check_layer_setting(self.layers, ("all",))
        check_switch("released", self.released)
        check_switch("causal", self.causal)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.causal and (self.kept == 1 or self.scale == 1)

    @property
    def is_causal(self) -> bool:
        """Whether attention stays causal."""
        return self.causal

    @property
    def rows(self) -> ChangedRows:
        """The rows after the image, or the last row alone."""
        return ChangedRows.LAST if self.released else ChangedRows.AFTER_IMAGE

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers of the settings without EAH's."""
        wanted = layers if isinstance(self.layers, str) else self.layers
        return [layer for layer in wanted if layer not in shared]

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with some heads scaled down, shape (R, n, H, D)."""
        key, query = rows.call.key, rows.call.query[:, :, -rows.count :]
        # Rows after the image see all image tokens, so no mask is needed.
        keys = (key.float() * rows.image[:, None, :, None]).sum(2)  # (R, N, D)
        heads, groups = query.shape[1], query.shape[1] // key.shape[1]
        keys = keys.repeat_interleave(groups, dim=1)  # (R, H, D)
        looks = torch.einsum("rhnd,rhd->rnh", query.float(), keys)
        most = looks.topk(int(self.kept * heads), dim=-1).indices
        factor = torch.full_like(looks, self.scale).scatter(-1, most, 1.0)  # (R, n, H)
        own = rows.own()
        return own * factor[..., None].to(own.dtype)
