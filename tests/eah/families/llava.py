"""LLaVA and its relatives, whose towers see squares of pixels, or tiles of them."""

from __future__ import annotations

from tests.eah.families.case import (
    IMAGE,
    VIDEO,
    Family,
    Media,
    Settings,
    placeholders,
    tiny,
)
from tests.eah.families.pictures import (
    clips,
    pictures_of_rows,
    pixels,
    tiles,
)
from tests.eah.families.settings import (
    CLIP_TOWER,
    ID,
    INDEX,
    INDICES,
    LLAMA,
    QWEN,
    SIGLIP,
    SQUARE,
)
from tests.eah.families.stand_in import with_stand_in

PINPOINTS: Settings = {"image_grid_pinpoints": [[32, 32]]}


FAMILIES = (
    Family(
        "llava",
        tiny("llava", text=LLAMA, vision=CLIP_TOWER, **INDEX),
        Media(placeholders(16), SQUARE),
        source="image_token_index",
    ),
    Family(
        "llava_next",
        tiny("llava_next", text=LLAMA, vision=CLIP_TOWER, **INDEX, **PINPOINTS),
        Media(placeholders(16 + 8 * 9), tiles(5, 16)),
        source="image_token_index",
    ),
    Family(
        "llava_next_video",
        tiny("llava_next_video", text=LLAMA, vision=CLIP_TOWER, **INDICES, **PINPOINTS),
        Media(placeholders(16 + 8 * 9), tiles(5, 16)),
        Media((VIDEO,) * 12, clips(3, 3, 16, 16), VIDEO),
        source="image_token_index, video_token_index",
    ),
    Family(
        "llava_onevision",
        tiny("llava_onevision", text=QWEN, vision=SIGLIP, **INDICES, **PINPOINTS),
        Media(placeholders(16 + 8 * 9), tiles(5, 16)),
        Media((VIDEO,) * 13, clips(3, 3, 16, 16), VIDEO),
        source="image_token_index, video_token_index",
    ),
    Family(
        "vipllava",
        tiny("vipllava", text=LLAMA, vision=CLIP_TOWER, vision_feature_layer=(-2, -1), **INDEX),
        Media(placeholders(16), SQUARE),
        source="image_token_index",
    ),
    Family(
        "video_llava",
        tiny("video_llava", text=LLAMA, vision=CLIP_TOWER, **INDICES),
        Media(placeholders(16), SQUARE),
        Media((VIDEO,) * 34, clips(2, 3, 16, 16), VIDEO),
        source="image_token_index, video_token_index",
    ),
    Family(
        "granite4_vision",
        tiny(
            "granite4_vision",
            text={"attention_multiplier": 0.35},
            vision={"model_type": "clip_vision_model", "hidden_size": 64},
            image_token_index=IMAGE,
            image_grid_pinpoints=[[32, 32]],
            downsample_rate="1/2",
            deepstack_layer_map=[[-1, 0]],
            spatial_target_layers=[1, 2],
            qformer_config={"hidden_size": 32, "intermediate_size": 32},
        ),
        Media(placeholders(4 + 4 * 5), tiles(5, 16)),
        source="image_token_index",
    ),
    Family(
        "perception_lm",
        tiny(
            "perception_lm",
            text=LLAMA,
            vision={**CLIP_TOWER, "model_args": {"embed_dim": 32}},
            **ID,
            video_token_id=VIDEO,
        ),
        Media(placeholders(16), pictures_of_rows(3, 16, 16)),
    ),
    Family(
        "fast_vlm",
        with_stand_in(
            tiny(
                "fast_vlm",
                text={"model_type": "qwen2"},
                vision={"model_type": "timm_wrapper"},
                image_token_index=IMAGE,
            )
        ),
        Media((IMAGE,) * 16, pixels(3, 16, 16)),
        source="image_token_index",
    ),
    Family(
        "llama4",
        tiny(
            "llama4",
            text={
                "num_local_experts": 2,
                "intermediate_size_mlp": 48,
                "head_dim": 8,
                "attention_chunk_size": 8,
            },
            vision={
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "intermediate_size": 128,
                "pixel_shuffle_ratio": 0.5,
            },
            **INDEX,
        ),
        Media(placeholders(4), SQUARE),
        source="image_token_index",
    ),
)
