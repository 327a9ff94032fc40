"""Families with cross-attention, a position bias or a kernel of their own."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    BIAS,
    CROSS,
    EXTRA,
    IMAGE,
    KERNEL,
    TEXT,
    Family,
    Media,
    Tensors,
    tiny,
)


def _blocks(rows: int, per_row: int) -> Tensors:
    """Return six blocks of two frames per picture, channels last."""
    return {"pixel_values": torch.randn(rows * per_row * 6, 2, 16, 16, 3)}


def _squares(rows: int, per_row: int) -> Tensors:
    """Return nine squares per picture, channels last, with their grid."""
    count = rows * per_row
    return {
        "pixel_values": torch.randn(count * 9, 8, 8, 3),
        "image_grid_thw": torch.tensor([[1, 3, 3]] * count),
    }


FAMILIES = (
    Family(
        "mllama",
        tiny(
            "mllama",
            text={"cross_attention_layers": [1], "bos_token_id": 1, "eos_token_id": 2},
            vision={
                "num_global_layers": 1,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [1],
                "max_num_tiles": 2,
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            },
            image_token_index=IMAGE,
        ),
        refused=CROSS,
    ),
    Family(
        "idefics",
        tiny(
            "idefics",
            text=None,
            vision={"embed_dim": 32},
            **TEXT,
            cross_layer_interval=2,
        ),
        refused=CROSS,
    ),
    Family(
        "blip",
        tiny(
            "blip",
            text=None,
            vision={"image_size": 16},
            text_config={**TEXT, "encoder_hidden_size": 32, "bos_token_id": 1, "eos_token_id": 2},
        ),
        refused=CROSS,
    ),
    Family(
        "inkling_mm_model",
        tiny(
            "inkling_mm_model",
            text={
                "head_dim": 8,
                "swa_num_attention_heads": 4,
                "swa_num_key_value_heads": 2,
                "swa_head_dim": 8,
                "d_rel": 4,
                "rel_extent": 64,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
            },
            vision={"text_hidden_size": 32, "n_layers": 2, "patch_size": 16},
            audio_config={"n_mel_bins": 8, "mel_vocab_size": 8, "text_hidden_size": 32},
            image_token_id=IMAGE,
            audio_token_id=EXTRA,
        ),
        Media((IMAGE,) * 6, _blocks),
        refused=BIAS,
    ),
    Family(
        "inkling2",
        tiny(
            "inkling2",
            text={
                "head_dim": 8,
                "swa_num_attention_heads": 4,
                "swa_num_key_value_heads": 2,
                "swa_head_dim": 8,
                "d_rel": 4,
                "rel_extent": 64,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "unpadded_vocab_size": 100,
            },
            vision={"text_hidden_size": 32, "projection_hidden_dim": 32, "posemb_grid_size": 6},
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 9, _squares),
        refused=BIAS,
    ),
    Family(
        "git",
        tiny(
            "git",
            text=None,
            **{**TEXT, "bos_token_id": 1, "eos_token_id": 2},
        ),
        refused=KERNEL,
        note="the model puts its image tokens before the prompt",
    ),
)
