"""Gemma 3, and PaliGemma, whose prompts hold the image token instead of a chat."""

from __future__ import annotations

from functools import partial

from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.sizes import HALF, STEPS, square
from tests.models.hf.templates import Template, turns
from tests.models.hf.vocabulary import metaspace

GEMMA_ROLES = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}
GEMMA_TURNS = turns("<start_of_turn>{}\n", "<end_of_turn>\n", answer="model")
# PaliGemma's processor adds these to any tokenizer; the model has rows for them.
PLACES = (
    *(f"<loc{place:04d}>" for place in range(1024)),
    *(f"<seg{code:03d}>" for code in range(128)),
)

CHECKPOINTS = (
    Checkpoint(
        name="gemma3",
        case="gemma3",
        words=Words(
            partial(metaspace, bos="<bos>"),
            (
                *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
                *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
            ),
            GEMMA_ROLES,
            {
                "boi_token": "<start_of_image>",
                "eoi_token": "<end_of_image>",
                "image_token": "<image_soft_token>",
            },
        ),
        processor={"processor_class": "Gemma3Processor", "image_seq_length": 16},
        image={"image_processor_type": "Gemma3ImageProcessor", **STEPS, **HALF, **square(16)},
        template=Template(
            *GEMMA_TURNS, GEMMA_TURNS[0]["assistant"], "<start_of_image>", start="<bos>"
        ),
        ids={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        placeholder="<image_soft_token>",
        attention="their picture",
        window=True,
        std=0.15,  # embeddings are multiplied by the root of the width
    ),
    Checkpoint(
        name="paligemma",
        case="paligemma",
        words=Words(
            metaspace,
            ("<pad>", "<eos>", "<bos>", "<unk>", "<image>", *PLACES),
            GEMMA_ROLES,
            {"image_token": "<image>"},
        ),
        processor={"processor_class": "PaliGemmaProcessor"},
        image={
            "image_processor_type": "SiglipImageProcessor",
            **STEPS,
            **HALF,
            **square(16),
            "image_seq_length": 16,
        },
        template=None,
        prefix="<image>",
        ids={"image_token_index": "<image>"},
        placeholder="<image>",
        attention="the whole prompt",
    ),
)
