"""Families with convolutions, linear attention or a state space in some layers."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    END,
    EXTRA,
    IMAGE,
    START,
    VIDEO,
    Family,
    Media,
    Tensors,
    placeholders,
    tiny,
)
from tests.eah.families.pictures import (
    modalities,
)
from tests.eah.families.settings import (
    BOTH_IDS,
    FILM,
    HYBRID,
    ID,
    IDS,
    PATCHES,
    PICTURE,
    VIDEO_PATCHES,
    WRAPPED,
)


def _shapes(rows: int, per_row: int) -> Tensors:
    count = rows * per_row
    return {
        "pixel_values": torch.randn(count, 36, 48),
        "spatial_shapes": torch.tensor([[6, 6]] * count),
        "pixel_attention_mask": torch.ones(count, 36, dtype=torch.long),
    }


def packed(rows: int, per_row: int) -> Tensors:
    """Return MiniCPM-V's pictures: the patches of all side by side."""
    count = rows * per_row
    return {
        "pixel_values": torch.randn(1, 3, 4, count * 64 * 4),
        "target_sizes": torch.tensor([[8, 8]] * count),
    }


def _patches(rows: int, per_row: int) -> Tensors:
    count = rows * per_row
    return {
        "pixel_values": torch.randn(count * 36, 48),
        "image_grid_hw": torch.tensor([[6, 6]] * count),
    }


FAMILIES = (
    Family(
        "lfm2_vl",
        tiny(
            "lfm2_vl",
            text={
                "model_type": "lfm2",
                "layer_types": ["conv", "full_attention"] * 2,
                "num_hidden_layers": 4,
            },
            vision={"model_type": "siglip2_vision_model", "num_patches": 36},
            projector_hidden_size=32,
            **ID,
        ),
        Media((START, *placeholders(9), END), _shapes),
        layers=(1, 3),
        note="layers 0 and 2 are convolutions",
    ),
    Family(
        "lfm3_vl",
        tiny(
            "lfm3_vl",
            text={
                "model_type": "lfm3",
                "head_dim": 8,
                "num_hidden_layers": 4,
                "layer_types": ["conv", "full_attention", "conv", "sliding_attention"],
                "sliding_window": 8,
            },
            vision={"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]},
            projector_hidden_size=32,
            **IDS,
            **WRAPPED,
        ),
        Media(PICTURE, PATCHES),
        Media(FILM, VIDEO_PATCHES, VIDEO),
        layers=(1, 3),
        source=BOTH_IDS,
        note="layers 0 and 2 are convolutions",
    ),
    Family(
        "minicpmv4_6",
        tiny(
            "minicpmv4_6",
            text={
                "model_type": "qwen3_5_text",
                "num_hidden_layers": 4,
                "layer_types": ["linear_attention", "full_attention"] * 2,
                "head_dim": 8,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
            },
            vision={"insert_layer_id": 0, "image_size": 32},
            insert_layer_id=0,
            **IDS,
        ),
        Media((START, *placeholders(4), END), packed),
        layers=(1, 3),
        source=BOTH_IDS,
        note="layers 0 and 2 are linear attention",
        atol=1e-4,
    ),
    Family(
        "minicpm_ocr",
        tiny(
            "minicpm_ocr",
            text={"model_type": "qwen3_5_text", **HYBRID},
            vision={"insert_layer_id": 0, "image_size": 32},
            insert_layer_id=0,
            downsample_mode="16x",
            **IDS,
        ),
        Media((START, *(IMAGE,) * 4, END), packed),
        layers=(1, 3),
        source=BOTH_IDS,
        note="layers 0 and 2 are linear attention",
        atol=1e-4,
    ),
    Family(
        "minicpmv4_7",
        tiny(
            "minicpmv4_7",
            text={"model_type": "qwen3_5_text", **HYBRID},
            vision={"insert_layer_id": 0, "image_size": 32},
            insert_layer_id=0,
            image_start_id=START,
            image_end_id=END,
            slice_start_id=EXTRA,
            slice_end_id=EXTRA + 1,
            newline_id=EXTRA + 2,
            **IDS,
        ),
        Media((START, *(IMAGE,) * 4, END), packed),
        more=modalities,
        layers=(1, 3),
        source=BOTH_IDS,
        note="layers 0 and 2 are linear attention",
        atol=1e-4,
    ),
    Family(
        "nemotron_h_omni",
        tiny(
            "nemotron_h_omni",
            text={
                "model_type": "nemotron_h",
                "head_dim": 8,
                "layers_block_type": [
                    "linear_attention",
                    "full_attention",
                    "mlp",
                    "full_attention",
                ],
                "mamba_num_heads": 4,
                "mamba_head_dim": 16,
                "ssm_state_size": 8,
                "n_groups": 2,
                "chunk_size": 8,
                "use_mamba_kernels": False,
            },
            vision={
                "model_type": "radio",
                "patch_dim": 48,
                "video_patch_dim": 96,
                "max_img_size": 24,
                "mlp_ratio": 1.0,
                "video_temporal_patch_size": 2,
            },
            projector_hidden_size=32,
            vision_hidden_size=32,
            **IDS,
        ),
        Media(PICTURE, _patches),
        layers=(1, 3),
        source=BOTH_IDS,
        note="layer 0 is a state space, layer 2 an MLP",
    ),
)
