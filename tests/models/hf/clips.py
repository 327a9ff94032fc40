"""LLaVA's relatives: Pixtral, and two that see videos."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.llava import CLS, CROP, PINPOINTS, VICUNA
from tests.models.hf.others import CHECKPOINTS as OTHERS
from tests.models.hf.sizes import CLIP, STEPS
from tests.models.hf.vocabulary import metaspace

(MISTRAL3,) = (checkpoint for checkpoint in OTHERS if checkpoint.name == "mistral3")
WORDS = Words(
    partial(metaspace, bos="<s>"),
    ("<unk>", "<s>", "</s>", "<image>", "<video>", "<pad>"),
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    {"image_token": "<image>", "video_token": "<video>"},
)
IDS = {"image_token_index": "<image>", "video_token_index": "<video>"}
TEMPLATE = replace(VICUNA, video="<video>\n")

CHECKPOINTS = (
    replace(
        MISTRAL3,
        name="pixtral",
        case="llava",
        text={},
        vision={"model_type": "pixtral"},
        processor={**MISTRAL3.processor, "spatial_merge_size": 1},
        settings={"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    ),
    Checkpoint(
        name="llava-next-video",
        case="llava_next_video",
        words=WORDS,
        processor={"processor_class": "LlavaNextVideoProcessor", **CLS},
        image={
            "image_processor_type": "LlavaNextImageProcessor",
            **STEPS,
            **CLIP,
            **CROP,
            **PINPOINTS,
        },
        video={"video_processor_type": "LlavaNextVideoVideoProcessor", **STEPS, **CLIP, **CROP},
        template=TEMPLATE,
        ids=IDS,
        placeholder="<image>",
        film="<video>",
        needs=("torchvision",),
        images_need=("torchvision",),
    ),
    Checkpoint(
        name="video-llava",
        case="video_llava",
        words=WORDS,
        processor={"processor_class": "VideoLlavaProcessor", **CLS},
        image={"image_processor_type": "VideoLlavaImageProcessor", **STEPS, **CLIP, **CROP},
        video={"video_processor_type": "VideoLlavaVideoProcessor", **STEPS, **CLIP, **CROP},
        template=TEMPLATE,
        ids=IDS,
        placeholder="<image>",
        film="<video>",
        needs=("torchvision",),
        images_need=("torchvision",),
    ),
)
