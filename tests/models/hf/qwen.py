"""Qwen's checkpoints: ChatML, patches of any size, positions in three dimensions."""

from __future__ import annotations

from typing import Any

from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.sizes import CLIP, HALF, STEPS, area
from tests.models.hf.templates import chatml
from tests.models.hf.vocabulary import byte_level

WORDS = Words(
    byte_level,
    (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
    {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    kind="Qwen2Tokenizer",
)
IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
SYSTEM = "You are a helpful assistant."
PATCH: dict[str, Any] = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
FRAMES: dict[str, Any] = {"do_sample_frames": False, "min_frames": 2, "max_frames": 8}
TOWER: dict[str, Any] = {"depth": 2, "num_heads": 2}  # as transformers 4 names them


def _checkpoint(name: str, case: str, processor: str, video: str, system: str) -> Checkpoint:
    look = HALF if system == "" else CLIP
    return Checkpoint(
        name=name,
        case=case,
        words=WORDS,
        processor={"processor_class": processor},
        image={
            "image_processor_type": "Qwen2VLImageProcessor",
            **STEPS,
            **look,
            **PATCH,
            **area(256, 1024),
        },
        video={
            "video_processor_type": video,
            **STEPS,
            **look,
            **PATCH,
            **FRAMES,
            **area(256, 4096),
        },
        template=chatml(IMAGE, video=VIDEO, system=system),
        ids=IDS,
        vision=TOWER,
        placeholder="<|image_pad|>",
        film="<|video_pad|>",
        needs=("torchvision",),
        positions="M-RoPE",
    )


CHECKPOINTS = (
    _checkpoint("qwen2-vl", "qwen2_vl", "Qwen2VLProcessor", "Qwen2VLVideoProcessor", SYSTEM),
    _checkpoint("qwen2.5-vl", "qwen2_5_vl", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor", SYSTEM),
    _checkpoint("qwen3-vl", "qwen3_vl", "Qwen3VLProcessor", "Qwen3VLVideoProcessor", ""),
)
