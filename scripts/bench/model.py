"""Time to the first token, decoding speed and memory of a whole model, in three ways.

`costs.py` runs it on models of `vlm.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

import torch

import eah
from models.base import VLM
from models.generation import EncodedPrompts, pad_prompts
from scripts.bench.released_model import SPAN, released_model
from scripts.bench.rounds import Arm

MIB: Final = 2**20
RELEASED: Final = "released way"
QUESTION: Final = "Is there a dog in the image?"
Context = Callable[[], AbstractContextManager[Any]]


def model_arms(vlm: VLM, config: eah.EAHConfig, *, batch: int, new_tokens: int) -> dict[str, Arm]:
    """Return one round in each way, on the same prompts about a random picture each.

    Args:
        vlm: The model.
        config: EAH's settings.
        batch: Prompts.
        new_tokens: Tokens to decode.
    """
    return arms_of(vlm, config, random_prompts(vlm, batch), new_tokens)


@torch.inference_mode()
def random_prompts(vlm: VLM, batch: int) -> EncodedPrompts:
    """Return prompts about a random picture each."""
    side = vlm.model.config.vision_config.image_size
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
    return vlm.embed_prompts(vlm.encode_pixels(pixels), [QUESTION] * batch)


def long_arms(vlm: VLM, config: eah.EAHConfig, *, batch: int, length: int) -> dict[str, Arm]:
    """Return one prefill of long prompts in each way: the picture's tokens first, then text."""
    width = vlm.language_model.config.get_text_config(decoder=True).hidden_size
    weight = vlm.language_model.get_input_embeddings().weight
    rows = [torch.randn(length, width, device=weight.device).to(weight.dtype)] * batch
    at = torch.arange(length)
    image = (at >= SPAN[0]) & (at < SPAN[1])
    return arms_of(vlm, config, pad_prompts(rows, [image] * batch), 0)


def arms_of(vlm: VLM, config: eah.EAHConfig, prompts: EncodedPrompts, new: int) -> dict[str, Arm]:
    """Return one round of prefill and decoding in each way, by name."""
    entered: dict[str, Context] = {
        "baseline": nullcontext,
        "EAH": partial(eah.enabled, vlm.model, config),
    }
    if prompts.embeds.shape[1] >= SPAN[1]:
        entered[RELEASED] = partial(released_model, vlm.model)
    return {name: partial(_round, context, vlm, prompts, new) for name, context in entered.items()}


def map_gib(vlm: VLM, *, batch: int, length: int) -> float:
    """Return how large the attention maps of all heads of a layer are, which a softmax makes."""
    heads = vlm.language_model.config.get_text_config(decoder=True).num_attention_heads
    return float(4 * batch * heads * length**2 / 2**30)  # (B, H, S, S) in float32


def _round(context: Context, vlm: VLM, prompts: EncodedPrompts, new: int) -> dict[str, float]:
    with context():
        return generate(vlm.language_model, prompts, new)


@torch.inference_mode()
def generate(model: Any, prompts: EncodedPrompts, new_tokens: int) -> dict[str, float]:
    """Prefill prompts and decode greedily with the KV cache.

    Args:
        model: A language model.
        prompts: The prompts.
        new_tokens: Tokens to decode.
    Returns:
        Time to the first token, decoded tokens per second of the whole batch, and on a GPU the
        peak memory, weights included.
    """
    device = prompts.embeds.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = now(device)
    with eah.image_tokens(model, prompts.image_mask):
        output = model(
            inputs_embeds=prompts.embeds,
            attention_mask=prompts.attention_mask,
            use_cache=True,
            logits_to_keep=1,
        )
    token = output.logits[:, -1:].argmax(-1)  # (B, 1, V) -> (B, 1)
    first = now(device)
    for _ in range(new_tokens):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    result = {"time to first token, ms": 1000 * (first - start)}
    if new_tokens:
        result["decoding, tokens/s"] = new_tokens * len(token) / (now(device) - first)
    if device.type == "cuda":
        result["peak memory, MiB"] = torch.cuda.max_memory_allocated(device) / MIB
    return result


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def work_time(device: torch.device) -> float:
    """Return the time in seconds: a clock's where a GPU works, else the process's own."""
    return now(device) if device.type == "cuda" else time.process_time()
