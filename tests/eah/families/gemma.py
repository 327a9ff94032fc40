"""Gemma's families, with masks of their own."""

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
    pixels,
)
from tests.eah.families.settings import (
    BOTH_IDS,
    IDS,
    LOCAL,
    SIGLIP,
    SQUARE,
)
from tests.eah.families.stand_in import with_stand_in


def _image_types(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    return {"token_type_ids": (ids == IMAGE).long()}


def _positions(rows: int, per_row: int) -> Tensors:
    """Return Gemma 4's patches with their (x, y)."""
    count = rows * per_row
    places = torch.cartesian_prod(torch.arange(6), torch.arange(6)).flip(-1)
    return {
        "pixel_values": torch.rand(count, 36, 48),
        "image_position_ids": places.repeat(count, 1, 1),
    }


def _merged(rows: int, per_row: int) -> Tensors:
    """Return Gemma 4's pictures as patches that are merged already, with their (x, y)."""
    count = rows * per_row
    places = torch.cartesian_prod(torch.arange(3), torch.arange(3)).flip(-1)
    return {
        "pixel_values": torch.rand(count, 9, 192),
        "image_position_ids": places.repeat(count, 1, 1),
    }


FAMILIES = (
    Family(
        "gemma3",
        tiny(
            "gemma3",
            text=LOCAL,
            vision=SIGLIP,
            image_token_index=IMAGE,
            boi_token_index=START,
            eoi_token_index=END,
            mm_tokens_per_image=16,
        ),
        Media((START, *placeholders(16), END), SQUARE),
        more=_image_types,
        source="image_token_index",
        note="image tokens see each other; layers 0 and 2 have a window",
    ),
    Family(
        "gemma3 causal",
        tiny(
            "gemma3",
            text=LOCAL,
            vision=SIGLIP,
            image_token_index=IMAGE,
            boi_token_index=START,
            eoi_token_index=END,
            mm_tokens_per_image=16,
        ),
        Media((START, *placeholders(16), END), SQUARE),
        source="image_token_index",
        note="without token_type_ids; layers 0 and 2 have a window",
    ),
    Family(
        "gemma3n",
        with_stand_in(
            tiny(
                "gemma3n",
                text={
                    "head_dim": 8,
                    "num_hidden_layers": 4,
                    "sliding_window": 8,
                    "layer_types": ["sliding_attention", "full_attention"] * 2,
                    "intermediate_size": [48] * 4,
                    "activation_sparsity_pattern": [0.0] * 4,
                    "vocab_size": 104,
                    "vocab_size_per_layer_input": 104,
                    "hidden_size_per_layer_input": 4,
                    "altup_num_inputs": 2,
                    "num_kv_shared_layers": 2,
                    "laurel_rank": 4,
                },
                vision={"vocab_offset": 88, "vocab_size": 8},
                audio_config={
                    "vocab_offset": 96,
                    "vocab_size": 8,
                    "hidden_size": 32,
                    "input_feat_size": 16,
                    "conf_num_attention_heads": 2,
                    "conf_num_hidden_layers": 1,
                    "sscp_conv_channel_size": [4, 4],
                },
                vision_soft_tokens_per_image=16,
                image_token_id=IMAGE,
                audio_token_id=97,
            )
        ),
        Media((IMAGE,) * 16, pixels(3, 16, 16)),
        layers=(0, 1, 2, 3),
        note="layers 0 and 2 have a window; layers 2 and 3 use the keys of earlier ones",
        atol=1e-4,
    ),
    Family(
        "gemma4",
        tiny(
            "gemma4",
            text={
                **LOCAL,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_hidden_layers": 4,
                "global_head_dim": 16,
                "vocab_size_per_layer_input": 100,
                "hidden_size_per_layer_input": 4,
                "use_bidirectional_attention": "vision",
            },
            vision={
                "head_dim": 16,
                "num_key_value_heads": 2,
                "pooling_kernel_size": 2,
                "position_embedding_size": 16,
            },
            boi_token_id=START,
            eoi_token_id=END,
            audio_token_id=EXTRA,
            **IDS,
        ),
        Media((START, *placeholders(9), END), _positions),
        more=modalities,
        layers=(0, 1, 2, 3),
        source=BOTH_IDS,
        note="image tokens see each other; layers 0 and 2 have a window; head size by layer",
        atol=1e-4,
    ),
    Family(
        "gemma4_unified",
        tiny(
            "gemma4_unified",
            text={
                **LOCAL,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_hidden_layers": 4,
                "global_head_dim": 16,
                "use_bidirectional_attention": "vision",
            },
            vision={
                "patch_size": 4,
                "pooling_kernel_size": 2,
                "mm_embed_dim": 32,
                "mm_posemb_size": 16,
                "output_proj_dims": 32,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=EXTRA,
        ),
        Media((IMAGE,) * 9, _merged),
        more=modalities,
        layers=(0, 1, 2, 3),
        atol=1e-4,
    ),
)
