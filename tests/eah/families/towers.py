"""Families whose pictures are squares of pixels: one tower, one number of tokens."""

from __future__ import annotations

from tests.eah.families.case import (
    END,
    EXTRA,
    IMAGE,
    START,
    Family,
    Media,
    placeholders,
    tiny,
)
from tests.eah.families.pictures import (
    pictures_of_rows,
    pixels,
    sized,
)
from tests.eah.families.settings import (
    ID,
    INDEX,
    LLAMA,
    QWEN,
    SIGLIP,
    SQUARE,
)

FAMILIES = (
    Family(
        "internvl",
        tiny(
            "internvl",
            text=QWEN,
            vision={"image_size": [16, 16], "patch_size": [4, 4]},
            **ID,
        ),
        Media((START, *placeholders(4), END), SQUARE),
    ),
    Family(
        "qianfan_ocr",
        tiny(
            "qianfan_ocr",
            text={"model_type": "qwen3", "head_dim": 8},
            vision={"image_size": [32, 32], "patch_size": [4, 4]},
            image_token_id=IMAGE,
        ),
        Media((START, *(IMAGE,) * 16, END), pixels(3, 32, 32)),
    ),
    Family(
        "aya_vision",
        tiny(
            "aya_vision",
            text={"model_type": "cohere2", "sliding_window": 8},
            vision=SIGLIP,
            **INDEX,
        ),
        Media(placeholders(4), SQUARE),
        source="image_token_index",
        note="sliding window in layers 0 to 2",
    ),
    Family(
        "cohere2_vision",
        tiny(
            "cohere2_vision",
            text={
                "model_type": "cohere2",
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_hidden_layers": 4,
            },
            vision={**SIGLIP, "image_size": 32},
            alignment_intermediate_size=32,
            **ID,
        ),
        Media(placeholders(16), pixels(3, 32, 32)),
        layers=(0, 1, 2, 3),
    ),
    Family(
        "mistral3",
        tiny(
            "mistral3",
            text={"model_type": "mistral"},
            vision={"model_type": "pixtral", "image_size": 16},
            **INDEX,
        ),
        Media(placeholders(4), sized(16)),
        source="image_token_index",
    ),
    Family(
        "lighton_ocr",
        tiny(
            "lighton_ocr",
            text={"model_type": "qwen3", "head_dim": 8},
            vision={"model_type": "pixtral", "image_size": 32},
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 16, sized(32)),
    ),
    Family(
        "ovis2",
        tiny(
            "ovis2",
            text=QWEN,
            vision={"vocab_size": 40, "hidden_stride": 2},
            hidden_size=32,
            vocab_size=100,
            visual_indicator_token_ids=[EXTRA, EXTRA + 1, EXTRA + 2, EXTRA + 3, EXTRA + 4],
            **ID,
        ),
        Media((EXTRA, *placeholders(4), EXTRA + 1), SQUARE),
    ),
    Family(
        "deepseek_vl",
        tiny("deepseek_vl", text=LLAMA, vision=SIGLIP, **ID),
        Media(placeholders(16), SQUARE),
    ),
    Family(
        "aria",
        tiny(
            "aria",
            text={"model_type": "aria_text", "moe_num_experts": 4, "moe_num_shared_experts": 1},
            vision={"model_type": "idefics3_vision"},
            projector_patch_to_query_dict={16: 8},
            image_token_index=IMAGE,
        ),
        Media(placeholders(8), SQUARE),
        source="image_token_index",
    ),
    Family(
        "idefics2",
        tiny(
            "idefics2",
            text={"model_type": "mistral"},
            perceiver_config={
                "hidden_size": 32,
                "resampler_n_latents": 5,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 8,
                "num_key_value_heads": 1,
            },
            **ID,
        ),
        Media(placeholders(5), pictures_of_rows(3, 16, 16)),
    ),
    Family(
        "idefics3",
        tiny("idefics3", text=LLAMA, **ID),
        Media((START, *placeholders(4), END), pictures_of_rows(3, 16, 16)),
    ),
    Family(
        "smolvlm",
        tiny("smolvlm", text=LLAMA, **ID),
        Media((START, *placeholders(4), END), pictures_of_rows(3, 16, 16)),
    ),
    Family(
        "step3p7",
        tiny(
            "step3p7",
            text={
                "head_dim": 8,
                "layer_types": ["full_attention"] * 3,
                "mlp_layer_types": ["dense", "sparse", "sparse"],
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "share_expert_dim": 16,
                "num_sliding_attention_heads": 4,
                "sliding_window": 8,
            },
            vision={"image_size": 32},
            image_token_id=IMAGE,
        ),
        Media((IMAGE,) * 4, pixels(3, 32, 32)),
    ),
)
