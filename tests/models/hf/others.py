"""Mistral 3, Aya Vision and GLM-4V."""

from __future__ import annotations

from functools import partial

from tests.models.hf.checkpoint import PILLOW_FIRST, Checkpoint, Words
from tests.models.hf.qwen import FRAMES, PATCH, TOWER
from tests.models.hf.sizes import CLIP, HALF, STEPS, area, square
from tests.models.hf.templates import Template, turns
from tests.models.hf.vocabulary import byte_level, metaspace

COHERE_TURNS = turns(
    "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>", "<|END_OF_TURN_TOKEN|>", user="USER", answer="CHATBOT"
)
GLM_TURNS = turns("<|{}|>\n", "")

PIXTRAL_NEEDS = () if PILLOW_FIRST else ("torchvision",)

CHECKPOINTS = (
    Checkpoint(
        name="mistral3",
        case="mistral3",
        words=Words(
            partial(metaspace, bos="<s>"),
            (
                *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"),
                *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
            ),
            {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        ),
        processor={
            "processor_class": "PixtralProcessor",
            "patch_size": 4,
            "spatial_merge_size": 2,
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
        },
        image={
            "image_processor_type": "PixtralImageProcessor",
            **STEPS,
            **CLIP,
            "patch_size": 4,
            "size": {"longest_edge": 16},
        },
        template=Template(
            {"system": "[SYSTEM_PROMPT]", "user": "[INST]", "assistant": ""},
            {"system": "[/SYSTEM_PROMPT]", "user": "[/INST]", "assistant": "</s>"},
            "",
            "[IMG]",
            start="<s>",
        ),
        ids={"image_token_index": "[IMG]"},
        text={"sliding_window": None},  # as in Mistral Small 3.1
        placeholder="[IMG]",
        needs=PIXTRAL_NEEDS,
        images_need=PIXTRAL_NEEDS,
    ),
    Checkpoint(
        name="aya-vision",
        case="aya_vision",
        words=Words(
            byte_level,
            (
                *("<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<image>"),
                *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
                *("<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
                *("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"),
                *("TILE", "TILE_GLOBAL", *(f"TILE_{tile}" for tile in range(1, 13))),
            ),
            {
                "bos_token": "<BOS_TOKEN>",
                "eos_token": "<|END_OF_TURN_TOKEN|>",
                "unk_token": "<UNK>",
                "pad_token": "<PAD>",
            },
        ),
        processor={
            "processor_class": "AyaVisionProcessor",
            "patch_size": 4,
            "img_size": 16,
            "downsample_factor": 2,
        },
        image={
            "image_processor_type": "GotOcr2ImageProcessor",
            **STEPS,
            **HALF,
            **square(16),
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 4,
        },
        template=Template(
            {**COHERE_TURNS[0], "system": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>"},
            COHERE_TURNS[1],
            COHERE_TURNS[0]["assistant"],
            "<image>",
            start="<BOS_TOKEN>",
        ),
        ids={"image_token_index": "<|IMG_PATCH|>"},
        text={"sliding_window": 32},
        placeholder="<|IMG_PATCH|>",
        window=True,
    ),
    Checkpoint(
        name="glm-4v",
        case="glm4v",
        words=Words(
            byte_level,
            (
                *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
                *("<|system|>", "<|user|>", "<|assistant|>"),
                *("<|begin_of_image|>", "<|end_of_image|>", "<|image|>"),
                *("<|begin_of_video|>", "<|end_of_video|>", "<|video|>"),
            ),
            {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        ),
        processor={"processor_class": "Glm4vProcessor"},
        image={
            "image_processor_type": "Glm4vImageProcessor",
            **STEPS,
            **CLIP,
            **PATCH,
            **area(256, 1152),
        },
        video={
            "video_processor_type": "Glm4vVideoProcessor",
            **STEPS,
            **CLIP,
            **PATCH,
            **FRAMES,
            **area(256, 4096),
        },
        template=Template(
            *GLM_TURNS,
            "<|assistant|>\n",
            "<|begin_of_image|><|image|><|end_of_image|>",
            "<|begin_of_video|><|video|><|end_of_video|>",
            start="[gMASK]<sop>",
        ),
        ids={
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        vision=TOWER,
        placeholder="<|image|>",
        needs=("torchvision",),
        positions="M-RoPE",
    ),
)
