"""A LLaVA with random weights, LLaVA-1.5's depth and image tokens, and any width, for CPUs.

Methods that were published for models of 32 layers run on it unchanged.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from models.base import VLM
from scripts.bench.vlm import make_vlm

NAME: Final = "llava-1.5"
LAYERS: Final = 32
HEAD_SIZE: Final = 64


def make_deep_vlm(device: torch.device, width: int | None, side: int) -> VLM:
    """Return a LLaVA of random weights that never ends an answer before its last token.

    Args:
        device: Where it runs.
        width: Of the language model, in heads of 64; None for LLaVA-1.5-7B's own size.
        side: Of its pictures, in patches.
    """
    config = None if width is None else narrow_config(width, side)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vlm = make_vlm(NAME, device, config)
    with torch.no_grad():
        for id_ in vlm.eos_ids:  # a logit of 0 is never the largest of thousands
            vlm.language_model.get_output_embeddings().weight[id_] = 0
    return vlm


def narrow_config(width: int, side: int) -> Any:
    """Return LLaVA-1.5's config with its depth and number of image tokens, but another width."""
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,  # pictures are encoded before time is taken
        num_attention_heads=2,
        image_size=14 * side,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // HEAD_SIZE,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict())
