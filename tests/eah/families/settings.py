"""Settings and inputs that several families share."""

from __future__ import annotations

from tests.eah.families.case import (
    END,
    IMAGE,
    START,
    VIDEO,
    Settings,
)
from tests.eah.families.pictures import (
    grid,
    pixels,
)

CLIP_TOWER: Settings = {"model_type": "clip_vision_model"}
SIGLIP: Settings = {"model_type": "siglip_vision_model"}
LLAMA: Settings = {"model_type": "llama"}
QWEN: Settings = {"model_type": "qwen2"}
INDEX: Settings = {"image_token_index": IMAGE}
INDICES: Settings = {"image_token_index": IMAGE, "video_token_index": VIDEO}
ID: Settings = {"image_token_id": IMAGE}
IDS: Settings = {"image_token_id": IMAGE, "video_token_id": VIDEO}
WRAPPED: Settings = {"vision_start_token_id": START, "vision_end_token_id": END}
BOTH_IDS = "image_token_id, video_token_id"
SQUARE = pixels(3, 16, 16)
PICTURE = (START, *(IMAGE,) * 9, END)
FILM = (START, *(VIDEO,) * 8, END)
FRAMES = (START, *(VIDEO,) * 4, END) * 2
PATCHES = grid(6, 6, 96)
VIDEO_PATCHES = grid(4, 4, 96, frames=2, video=True)
MROPE: Settings = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
EXPERTS: Settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL: Settings = {
    "head_dim": 8,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
GLM: Settings = {
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": 95,
    "video_end_token_id": 96,
}
HYBRID: Settings = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
}
TOWER: Settings = {"out_hidden_size": 32, "num_position_embeddings": 36}
DEEPSTACK: Settings = {**TOWER, "deepstack_visual_indexes": [0, 1]}
