"""Muse."""

from __future__ import annotations

from tests.eah.families.case import (
    EXTRA,
    IMAGE,
    VIDEO,
    Family,
    Media,
    tiny,
)
from tests.eah.families.pictures import (
    grid,
)
from tests.eah.families.settings import (
    BOTH_IDS,
    IDS,
)

FAMILIES = (
    Family(
        "muse_glimmer",
        tiny(
            "muse_glimmer",
            text={
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "layer_rope_theta": [10000.0, 0, 10000.0],
            },
            vision={
                "pos_emb_height": 6,
                "pos_emb_width": 6,
                "max_position_embeddings": 36,
                "layer_types": ["window_attention", "full_attention"],
            },
            out_hidden_size=128,
            projector_hidden_size=32,
            **IDS,
        ),
        Media((IMAGE,) * 9, grid(6, 6, 96)),
        Media((VIDEO,) * 4, grid(4, 4, 96, video=True), VIDEO),
        source=BOTH_IDS,
    ),
    Family(
        "muse_spark",
        tiny(
            "muse_spark",
            text={
                "head_dim": 8,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "layer_rope_theta": [10000.0, 0, 10000.0],
                "num_local_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "moe_hidden_size": 32,
                "mlp_layer_types": ["dense", "sparse", "sparse"],
            },
            vision={
                "pos_emb_height": 6,
                "pos_emb_width": 6,
                "max_position_embeddings": 36,
                "layer_types": ["window_attention", "full_attention"],
            },
            audio_config={
                "patch_sizes": [4, 2],
                "hidden_sizes": [8, 8],
                "depths": [1, 1],
                "num_hidden_layers": 2,
                "out_hidden_size": 32,
            },
            out_hidden_size=128,
            projector_hidden_size=32,
            audio_token_id=EXTRA,
            **IDS,
        ),
        Media((IMAGE,) * 9, grid(6, 6, 96)),
        source=BOTH_IDS,
    ),
)
