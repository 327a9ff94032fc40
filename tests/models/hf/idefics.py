"""Idefics 2 and 3, and SmolVLM: pictures between tokens that mark their edges."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.sizes import HALF, STEPS
from tests.models.hf.templates import Template, turns
from tests.models.hf.vocabulary import byte_level, metaspace

AROUND = "<fake_token_around_image>"
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
IDEFICS = (AROUND, "<image>", "<end_of_utterance>", "<global-img>", *TILES)
UTTERANCES = turns("{}:", "<end_of_utterance>\n", user="User", answer="Assistant")
SPLIT: dict[str, Any] = {
    "size": {"longest_edge": 16},
    "max_image_size": {"longest_edge": 16},
    "do_image_splitting": False,
    "do_pad": True,
    "resample": 1,
}

CHECKPOINTS = (
    Checkpoint(
        name="idefics3",
        case="idefics3",
        words=Words(
            byte_level,
            ("<|begin_of_text|>", "<|end_of_text|>", *IDEFICS),
            {
                "bos_token": "<|begin_of_text|>",
                "eos_token": "<end_of_utterance>",
                "pad_token": "<|end_of_text|>",
            },
        ),
        processor={"processor_class": "Idefics3Processor", "image_seq_len": 4},
        image={"image_processor_type": "Idefics3ImageProcessor", **STEPS, **HALF, **SPLIT},
        template=Template(*UTTERANCES, "Assistant:", "<image>", start="<|begin_of_text|>"),
        ids={"image_token_id": "<image>"},
        placeholder="<image>",
    ),
    Checkpoint(
        name="smolvlm",
        case="smolvlm",
        words=Words(
            byte_level,
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *IDEFICS),
            {
                "bos_token": "<|im_start|>",
                "eos_token": "<end_of_utterance>",
                "pad_token": "<|im_end|>",
            },
            {
                "fake_image_token": AROUND,
                "image_token": "<image>",
                "end_of_utterance_token": "<end_of_utterance>",
                "global_image_token": "<global-img>",
            },
        ),
        processor={"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        image={"image_processor_type": "SmolVLMImageProcessor", **STEPS, **HALF, **SPLIT},
        video={
            "video_processor_type": "SmolVLMVideoProcessor",
            **STEPS,
            **HALF,
            **SPLIT,
            "do_sample_frames": False,
            "num_frames": 4,
            "fps": 1,
        },
        template=Template(*UTTERANCES, "Assistant:", "<image>", "<video>", start="<|im_start|>"),
        ids={"image_token_id": "<image>"},
        placeholder="<image>",
        needs=("torchvision", "num2words"),
        images_need=("torchvision", "num2words"),
    ),
    Checkpoint(
        name="idefics2",
        case="idefics2",
        words=Words(
            partial(metaspace, bos="<s>"),
            ("<unk>", "<s>", "</s>", AROUND, "<image>", "<end_of_utterance>"),
            {
                "bos_token": "<s>",
                "eos_token": "<end_of_utterance>",
                "unk_token": "<unk>",
                "pad_token": "<unk>",
            },
        ),
        processor={"processor_class": "Idefics2Processor", "image_seq_len": 5},
        image={
            "image_processor_type": "Idefics2ImageProcessor",
            **STEPS,
            **HALF,
            "size": {"longest_edge": 16, "shortest_edge": 8},
            "do_image_splitting": False,
            "do_pad": True,
        },
        template=Template(*UTTERANCES, "Assistant:", "<image>"),
        ids={"image_token_id": "<image>"},
        placeholder="<image>",
    ),
)
