"""A random LLaVA of eight layers, as it is or with a head that attends to everything alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.models.toys import TOKENIZER

LAYERS: Final = 8
HEADS: Final = 4
SIZE: Final = 16  # of a head
IMAGE_TOKENS: Final = 16


def write_llava(folder: Path, flat: tuple[int, int] | None = None, seed: int = 0) -> Path:
    """Save the model.

    Args:
        folder: Where to.
        flat: Layer and head whose queries are 0, so that it attends to all that it sees alike.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=642,
        hidden_size=HEADS * SIZE,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=512,
    )
    vision = CLIPVisionConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=56,
        patch_size=14,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_id=641)
    )
    for name, parameter in model.named_parameters():
        offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, offset, 0.05 if parameter.dim() == 1 else 0.25)
    if flat is not None:
        layer, head = flat
        weight = model.model.language_model.layers[layer].self_attn.q_proj.weight
        with torch.no_grad():
            weight[head * SIZE : (head + 1) * SIZE] = 0
    model.eval().save_pretrained(folder)
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    return folder
