"""LLaVA's checkpoints, and Ovis2 and InternVL, whose towers see squares of pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.sizes import CLIP, HALF, STEPS, square
from tests.models.hf.templates import Template, chatml
from tests.models.hf.vocabulary import byte_level, metaspace

LLAMA = Words(
    partial(metaspace, bos="<s>"),
    ("<unk>", "<s>", "</s>", "<image>", "<pad>"),
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    {"image_token": "<image>"},
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
VICUNA = Template(
    opening={"system": "", "user": "USER: ", "assistant": "ASSISTANT: "},
    closing={"system": " ", "user": " ", "assistant": "</s>"},
    answer="ASSISTANT:",
    image="<image>\n",
)
MISTRAL = Template(
    opening={"system": "", "user": "[INST] ", "assistant": " "},
    closing={"system": "\n", "user": " [/INST]", "assistant": "</s>"},
    answer="",
    image="<image>\n",
)
CROP: dict[str, Any] = {
    "size": {"shortest_edge": 16},
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "resample": 3,
}
CLS: dict[str, Any] = {
    "patch_size": 4,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "image_token": "<image>",
}
PINPOINTS: dict[str, Any] = {"image_grid_pinpoints": [[32, 32]]}

CHECKPOINTS = (
    Checkpoint(
        name="llava",
        case="llava",
        words=LLAMA,
        processor={"processor_class": "LlavaProcessor", **CLS},
        image={"image_processor_type": "CLIPImageProcessor", **STEPS, **CLIP, **CROP},
        template=VICUNA,
        ids={"image_token_index": "<image>"},
        placeholder="<image>",
    ),
    Checkpoint(
        name="llava-next",
        case="llava_next",
        words=LLAMA,
        processor={"processor_class": "LlavaNextProcessor", **CLS},
        image={
            "image_processor_type": "LlavaNextImageProcessor",
            **STEPS,
            **CLIP,
            **CROP,
            **PINPOINTS,
        },
        template=MISTRAL,
        ids={"image_token_index": "<image>"},
        placeholder="<image>",
    ),
    Checkpoint(
        name="llava-onevision",
        case="llava_onevision",
        words=Words(byte_level, (*CHATML, "<image>", "<video>"), QWEN_ROLES, kind="Qwen2Tokenizer"),
        processor={
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
            "image_token": "<image>",
            "video_token": "<video>",
        },
        image={
            "image_processor_type": "LlavaOnevisionImageProcessor",
            **STEPS,
            **HALF,
            **square(16),
            **PINPOINTS,
        },
        video={
            "video_processor_type": "LlavaOnevisionVideoProcessor",
            **STEPS,
            **HALF,
            **square(16),
        },
        template=chatml("<image>\n", video="<video>\n"),
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
        placeholder="<image>",
        film="<video>",
        needs=("torchvision",),
    ),
    Checkpoint(
        name="internvl",
        case="internvl",
        words=Words(
            byte_level,
            (*CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
            QWEN_ROLES,
            {
                "start_image_token": "<img>",
                "end_image_token": "</img>",
                "context_image_token": "<IMG_CONTEXT>",
                "video_token": "<video>",
            },
            kind="Qwen2Tokenizer",
        ),
        processor={"processor_class": "InternVLProcessor", "image_seq_length": 4},
        image={
            "image_processor_type": "GotOcr2ImageProcessor",
            **STEPS,
            **CLIP,
            **square(16),
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 4,
        },
        video={"video_processor_type": "InternVLVideoProcessor", **STEPS, **CLIP, **square(16)},
        template=chatml("<IMG_CONTEXT>\n", video="<video>\n"),
        ids={"image_token_id": "<IMG_CONTEXT>"},
        placeholder="<IMG_CONTEXT>",
        needs=("torchvision",),
    ),
    Checkpoint(
        name="ovis2",
        case="ovis2",
        words=Words(
            byte_level,
            (
                *CHATML,
                "<image>",
                "<IMG_ATOM>",
                "<IMG_START>",
                "<IMG_GRID>",
                "<IMG_COL>",
                "<IMG_ROW>",
                "<IMG_END>",
            ),
            QWEN_ROLES,
            kind="Qwen2Tokenizer",
        ),
        processor={
            "processor_class": "Ovis2Processor",
            "image_token": "<image>",
            "image_seq_length": 4,
        },
        image={
            "image_processor_type": "Ovis2ImageProcessor",
            **STEPS,
            **CLIP,
            **square(16),
            "crop_to_patches": False,
        },
        template=chatml("<image>\n", system="You are a helpful assistant."),
        ids={
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": (
                "<IMG_START>",
                "<IMG_GRID>",
                "<IMG_COL>",
                "<IMG_ROW>",
                "<IMG_END>",
            ),
        },
        placeholder="<IMG_ATOM>",
    ),
)
