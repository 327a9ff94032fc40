"""Kosmos: the caller passes a mask of where the image tokens are."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    END,
    IMAGE,
    START,
    Family,
    Media,
    Tensors,
    placeholders,
    tiny,
)
from tests.eah.families.settings import (
    SQUARE,
)


def _position_mask(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    return {"image_embeds_position_mask": (ids == IMAGE).long()}


def _flat(rows: int, per_row: int) -> Tensors:
    """Return Kosmos 2.5's patches, each with its row and column in front."""
    places = torch.cartesian_prod(torch.arange(3), torch.arange(3)).float()
    patches = torch.randn(rows * per_row, 9, 48)
    return {"flattened_patches": torch.cat([places.expand(len(patches), 9, 2), patches], dim=2)}


FAMILIES = (
    Family(
        "kosmos-2",
        tiny(
            "kosmos-2",
            text={
                "embed_dim": 32,
                "layers": 3,
                "ffn_dim": 48,
                "attention_heads": 4,
                "dropout": 0.0,
            },
            latent_query_num=9,
        ),
        Media((START, *placeholders(9), END), SQUARE),
        more=_position_mask,
        source="image_embeds_position_mask",
    ),
    Family(
        "kosmos-2.5",
        tiny(
            "kosmos-2.5",
            text={
                "embed_dim": 32,
                "layers": 3,
                "ffn_dim": 48,
                "attention_heads": 4,
                "dropout": 0.0,
            },
            vision={"patch_embed_hidden_size": 48, "head_dim": 16, "max_num_patches": 9},
            latent_query_num=9,
        ),
        Media((START, *(IMAGE,) * 9, END), _flat),
        more=_position_mask,
        source="image_embeds_position_mask",
    ),
)
