"""Families that name their image tokens, or make them, in a way of their own."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    END,
    EXTRA,
    IMAGE,
    START,
    TEXT,
    Family,
    Media,
    Settings,
    Tensors,
    placeholders,
    tiny,
)
from tests.eah.families.pictures import (
    modalities,
    pixels,
    sized,
)
from tests.eah.families.settings import (
    ID,
    LLAMA,
    SQUARE,
)

VQ: Settings = {
    "embed_dim": 4,
    "num_embeddings": 8,
    "latent_channels": 32,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "resolution": 8,
}


def _crops(rows: int, per_row: int) -> Tensors:
    """Return Phi-4's pictures: the whole, then one crop."""
    count = rows * per_row
    return {
        "image_pixel_values": torch.randn(count, 2, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 16]] * count),
        "image_attention_mask": torch.ones(count, 2, 4, 4, dtype=torch.long),
    }


def _pooled(rows: int, per_row: int) -> Tensors:
    """Return Molmo's pictures: one crop each, and which patches each token pools."""
    count = rows * per_row
    patches = torch.arange(count * 16).view(count, 2, 2, 2, 2).transpose(2, 3)
    return {
        "pixel_values": torch.randn(count, 16, 48),
        "image_token_pooling": patches.reshape(count * 4, 4),
        "image_grids": torch.tensor([[2, 2, 0, 0]] * count),
    }


FAMILIES = (
    Family(
        "chameleon",
        tiny(
            "chameleon",
            text=None,
            vision=None,
            **TEXT,
            vq_config=VQ,
            vocabulary_map={
                "<image>": IMAGE,
                **{f"IMGIMG{'ABCDEFGH'[i]}Z": 80 + i for i in range(8)},
            },
        ),
        Media((START, *placeholders(16), END), pixels(3, 8, 8)),
        source='vocabulary_map["<image>"]',
    ),
    Family(
        "emu3",
        tiny(
            "emu3",
            text={"bos_token_id": 1, "eos_token_id": 2},
            vision=None,
            vq_config={
                "codebook_size": 8,
                "embed_dim": 4,
                "latent_channels": 4,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
                "attn_resolutions": [],
                "hidden_size": 32,
                "temporal_downsample_factor": 1,
            },
            vocabulary_map={
                "<image>": IMAGE,
                "<|extra_200|>": EXTRA,
                **{f"<|visual token {i:06d}|>": 80 + i for i in range(8)},
            },
        ),
        Media((START, *placeholders(20), END), sized(8)),
    ),
    Family(
        "janus",
        tiny(
            "janus",
            text=LLAMA,
            vision={"projection_dim": 32, "num_image_tokens": 16},
            vq_config={
                "embed_dim": 4,
                "num_embeddings": 16,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1],
                "num_res_blocks": 1,
                "projection_dim": 32,
                "image_token_embed_dim": 32,
                "num_patches": 4,
            },
            **ID,
        ),
        Media(placeholders(16), SQUARE),
    ),
    Family(
        "fuyu",
        tiny(
            "fuyu",
            text={"model_type": "persimmon"},
            vision=None,
            patch_size=4,
            **ID,
        ),
        Media(placeholders(9), pixels(9, 48)),
    ),
    Family(
        "phi4_multimodal",
        tiny(
            "phi4_multimodal",
            text=None,
            vision={"crop_size": 16, "image_token_id": IMAGE},
            model="Phi4MultimodalForCausalLM",
            audio_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_blocks": 1,
                "num_attention_heads": 2,
                "nemo_conv_channels": 8,
                "audio_token_id": EXTRA,
            },
            **TEXT,
        ),
        Media(placeholders(13), _crops),
        source="vision_config.image_token_id",
        eager_tower=False,
    ),
    Family(
        "molmo2",
        tiny(
            "molmo2",
            text={"head_dim": 8, "additional_vocab_size": 8},
            vision={
                "image_size": [16, 16],
                "num_position_embeddings": 16,
                "head_dim": 16,
                "num_key_value_heads": 2,
            },
            adapter_config={
                "vision_feature_layer": [-1, -2],
                "hidden_size": 32,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "intermediate_size": 32,
                "text_hidden_size": 32,
            },
            image_patch_id=IMAGE,
            image_start_token_id=START,
            image_end_token_id=END,
        ),
        Media((START, *placeholders(4), END), _pooled),
        more=modalities,
        source="image_patch_id",
        note="image tokens see each other",
    ),
)
