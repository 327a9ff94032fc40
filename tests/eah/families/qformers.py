"""Families whose pictures pass through a Q-Former: BLIP-2 and InstructBLIP."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    ENCODER,
    IMAGE,
    VIDEO,
    Family,
    Media,
    Settings,
    Tensors,
    tiny,
)
from tests.eah.families.pictures import (
    clips,
    pixels,
)

QFORMER: Settings = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
OPT: Settings = {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32}
T5: Settings = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}


def _question(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    """Return the question as the Q-Former reads it, the same for every picture."""
    pictures = int((ids == IMAGE).sum()) // 8 or int((ids == VIDEO).sum()) // 16
    tokens = torch.arange(5, 10).repeat(pictures, 1)
    return {"qformer_input_ids": tokens, "qformer_attention_mask": torch.ones_like(tokens)}


FAMILIES = (
    Family(
        "blip-2",
        tiny(
            "blip-2",
            text=OPT,
            qformer_config=QFORMER,
            num_query_tokens=8,
            image_token_index=IMAGE,
        ),
        Media((IMAGE,) * 8, pixels(3, 16, 16)),
        source="image_token_index",
        note="OPT",
    ),
    Family(
        "blip-2 with LLaMA",
        tiny(
            "blip-2",
            text={"model_type": "llama"},
            qformer_config=QFORMER,
            num_query_tokens=8,
            image_token_index=IMAGE,
        ),
        Media((IMAGE,) * 8, pixels(3, 16, 16)),
        source="image_token_index",
    ),
    Family(
        "blip-2 with T5",
        tiny(
            "blip-2",
            text=T5,
            qformer_config=QFORMER,
            num_query_tokens=8,
            image_token_index=IMAGE,
        ),
        refused=ENCODER,
    ),
    Family(
        "instructblip",
        tiny(
            "instructblip",
            text={"model_type": "llama"},
            qformer_config=QFORMER,
            num_query_tokens=8,
            image_token_index=IMAGE,
        ),
        Media((IMAGE,) * 8, pixels(3, 16, 16)),
        more=_question,
        source="image_token_index",
    ),
    Family(
        "instructblip with T5",
        tiny(
            "instructblip",
            text=T5,
            qformer_config=QFORMER,
            num_query_tokens=8,
            image_token_index=IMAGE,
        ),
        refused=ENCODER,
    ),
    Family(
        "instructblipvideo",
        tiny(
            "instructblipvideo",
            text={"model_type": "llama"},
            qformer_config=QFORMER,
            num_query_tokens=8,
            video_token_index=VIDEO,
        ),
        Media((VIDEO,) * 16, clips(2, 3, 16, 16, key="pixel_values"), VIDEO),
        more=_question,
        source="video_token_index",
    ),
)
