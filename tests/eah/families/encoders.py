"""Encoder-decoders, which `eah.enable` refuses."""

from __future__ import annotations

from tests.eah.families.case import (
    ENCODER,
    EXTRA,
    IMAGE,
    TEXT,
    Family,
    Settings,
    tiny,
)
from tests.eah.families.settings import LOCAL

T5: Settings = {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}

FAMILIES = (
    Family(
        "florence2",
        tiny(
            "florence2",
            text={
                "model_type": "bart",
                "d_model": 32,
                "encoder_layers": 2,
                "decoder_layers": 2,
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
            },
            vision=None,
            vision_config={
                "depths": [1],
                "patch_size": [4],
                "patch_stride": [4],
                "patch_padding": [0],
                "patch_prenorm": [False],
                "embed_dim": [32],
                "num_heads": [2],
                "num_groups": [2],
                "window_size": 2,
                "projection_dim": 32,
            },
            image_token_id=IMAGE,
        ),
        refused=ENCODER,
    ),
    Family(
        "t5gemma2",
        tiny(
            "t5gemma2",
            text=None,
            vision=None,
            encoder={
                "text_config": {**TEXT, "head_dim": 8, "model_type": "t5gemma2_text"},
                "vision_config": {
                    "model_type": "siglip_vision_model",
                    "hidden_size": 32,
                    "intermediate_size": 32,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "image_size": 16,
                    "patch_size": 4,
                },
                "mm_tokens_per_image": 16,
                "image_token_index": IMAGE,
            },
            decoder={**TEXT, "head_dim": 8},
            image_token_index=IMAGE,
            eoi_token_index=EXTRA,
        ),
        refused=ENCODER,
    ),
    Family(
        "pix2struct",
        tiny(
            "pix2struct",
            text={**T5, "hidden_size": 32},
            vision={**T5, "patch_embed_hidden_size": 48, "d_kv": 16},
        ),
        refused=ENCODER,
    ),
    Family(
        "udop",
        tiny("udop", text=None, vision=None, d_model=32, vocab_size=100, **T5),
        refused=ENCODER,
    ),
    Family(
        "diffusion_gemma",
        tiny(
            "diffusion_gemma",
            text={
                **LOCAL,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_hidden_layers": 4,
                "global_head_dim": 16,
                "num_experts": 4,
                "top_k_experts": 2,
                "moe_intermediate_size": 16,
            },
            vision={
                "model_type": "gemma4_vision",
                "head_dim": 16,
                "num_key_value_heads": 2,
                "pooling_kernel_size": 2,
                "position_embedding_size": 16,
            },
            canvas_length=8,
            image_token_id=IMAGE,
        ),
        refused=ENCODER,
    ),
)
