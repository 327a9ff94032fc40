"""Tiny models with random weights, whose heads differ enough for EAH to matter."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

import eah

IMAGE_TOKEN = 63
IMAGE_TOKENS = 16
SPAN = (3, 3 + IMAGE_TOKENS)
PADDED_SPAN = (8, 18)
TARGET = 1
CONFIG = eah.EAHConfig.preset("scale-free", layers=(TARGET,))
NO_SINKS = eah.EAHConfig(layers=(TARGET,), threshold=0.999)
KERNELS = ("eager", "sdpa")
SETTINGS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def tiny_llama(kernel: str = "sdpa") -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SETTINGS, attn_implementation=kernel)).eval()


def tiny_llava(kernel: str = "sdpa") -> LlavaForConditionalGeneration:
    torch.manual_seed(1)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        initializer_range=0.4,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**SETTINGS),
        image_token_index=IMAGE_TOKEN,
        attn_implementation=kernel,
    )
    return LlavaForConditionalGeneration(config).eval()


def image_prompt(rows: int = 1) -> dict[str, torch.Tensor]:
    """Return input_ids with the image tokens in SPAN, and pixel values, for the tiny Llava."""
    ids = torch.randint(3, 60, (rows, 24))
    ids[:, slice(*SPAN)] = IMAGE_TOKEN
    return {"input_ids": ids, "pixel_values": torch.randn(rows, 3, 16, 16)}


def text_prompt(rows: int = 1) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(3, 60, (rows, 24))}


def padded_prompt() -> dict[str, torch.Tensor]:
    """Return two text prompts, the first with five tokens of padding on the left."""
    prompt = text_prompt(2)
    prompt["attention_mask"] = torch.ones(2, 24, dtype=torch.long)
    prompt["attention_mask"][0, :5] = 0
    return prompt


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def tokens(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], **options: object
) -> torch.Tensor:
    """Return six generated tokens per prompt, greedily or by beams, none of them an image's."""
    width = 0 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1]
    generated = model.generate(
        **inputs, max_new_tokens=6, do_sample=False, suppress_tokens=[IMAGE_TOKEN], **options
    )
    return generated[:, width:]


def attention(model: PreTrainedModel, layer: int = TARGET) -> torch.nn.Module:
    """Return the self-attention of a decoder layer of a tiny model."""
    found = [
        module
        for module in model.modules()
        if type(module).__name__ == "LlamaAttention" and module.layer_idx == layer
    ]
    return found[0]
