"""Families for reading, and others whose towers begin with SAM."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    IMAGE,
    TEXT,
    VISION,
    Family,
    Media,
    Settings,
    Tensors,
    placeholders,
    tiny,
)
from tests.eah.families.pictures import (
    pixels,
)
from tests.eah.families.settings import (
    INDEX,
    QWEN,
)

SAM: Settings = {
    "hidden_size": 32,
    "output_channels": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
    "window_size": 2,
    "global_attn_indexes": [0],
    "mlp_dim": 32,
    "downsample_channels": [16, 32],
}
MOE: Settings = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
    "head_dim": 8,
}


def _two_sizes(rows: int, per_row: int) -> Tensors:
    """Return pictures once small and once large."""
    count = rows * per_row
    return {
        "pixel_values": torch.randn(count, 3, 16, 16),
        "high_res_pixel_values": torch.randn(count, 3, 64, 64),
    }


def _tiles(rows: int, per_row: int) -> Tensors:
    """Return tiles as (rows, tiles per row, ...), with which of them are no padding."""
    return {
        "pixel_values": torch.randn(rows, per_row, 3, 32, 32),
        "pixel_attention_mask": torch.ones(rows, per_row, dtype=torch.bool),
    }


FAMILIES = (
    Family(
        "got_ocr2",
        tiny(
            "got_ocr2",
            text=QWEN,
            vision={
                "output_channels": 8,
                "mlp_dim": 32,
                "window_size": 2,
                "global_attn_indexes": [1],
                "image_size": 64,
            },
            **INDEX,
        ),
        Media(placeholders(16), pixels(3, 64, 64)),
        source="image_token_index",
    ),
    Family(
        "deepseek_vl_hybrid",
        tiny(
            "deepseek_vl_hybrid",
            text={"model_type": "llama"},
            vision={"model_type": "siglip_vision_model"},
            high_res_vision_config={
                "model_type": "sam_vision_model",
                "hidden_size": 32,
                "output_channels": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 4,
                "window_size": 2,
                "global_attn_indexes": [0],
                "mlp_dim": 32,
                "num_pos_feats": 16,
            },
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 16, _two_sizes),
    ),
    Family(
        "deepseek_ocr2",
        tiny(
            "deepseek_ocr2",
            text={**MOE, "mlp_layer_types": ["dense", "sparse", "sparse"]},
            vision=None,
            vision_config={"sam_config": SAM, "encoder_config": {**TEXT, "num_hidden_layers": 1}},
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 145, pixels(3, 64, 64)),
    ),
    Family(
        "unlimited_ocr",
        tiny(
            "unlimited_ocr",
            text={**MOE, "mlp_layer_types": ["dense", "sparse", "sparse"], "sliding_window": 8},
            vision=None,
            vision_config={"sam_config": SAM, "encoder_config": {**VISION, "image_size": 16}},
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 21, pixels(3, 64, 64)),
    ),
    Family(
        "granite_docling",
        tiny(
            "granite_docling",
            text={
                "attention_multiplier": 0.35,
                "embedding_multiplier": 1.0,
                "residual_multiplier": 1.0,
                "logits_scaling": 1.0,
            },
            vision={
                "image_size": 32,
                "out_hidden_size": 32,
                "scale_factor": 2,
                "deepstack_visual_indexes": [0],
            },
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 16, _tiles),
    ),
)
