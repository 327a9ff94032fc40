"""A whole language model with and without EAH: time to the first token, decoding speed, memory.

The weights are random and made where they run, from a config: nothing is downloaded, and speed and
memory do not depend on the values. `scripts/bench.py` runs it.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

import eah
from scripts.bench_rows import Arm

MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A language model and its prompt; the defaults are LLaVA-1.5-7B's, with 576 image tokens."""

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    intermediate: int = 11008
    vocabulary: int = 32064
    prompt: int = 623
    span: tuple[int, int] = (34, 610)
    new_tokens: int = 64
    batches: tuple[int, ...] = (1, 8)


def make_model(shape: ModelShape, device: torch.device) -> nn.Module:
    """Build a model with random weights on a device, in bfloat16 on a GPU, else in float32."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    return model.eval()


def model_arms(model: nn.Module, shape: ModelShape, batch: int) -> dict[str, Arm]:
    """Return one round of the baseline and one of EAH (preset "paper"), on the same prompts."""
    generator = torch.Generator().manual_seed(batch)
    prompt = torch.randint(shape.vocabulary, (batch, shape.prompt), generator=generator)
    prompt = prompt.to(next(model.parameters()).device)

    def run(method: Literal["baseline", "eah"]) -> dict[str, float]:
        with eah.enabled(model) if method == "eah" else nullcontext():
            return generate(model, prompt, shape)

    return {"baseline": partial(run, "baseline"), "eah": partial(run, "eah")}


@torch.inference_mode()
def generate(model: nn.Module, prompt: torch.Tensor, shape: ModelShape) -> dict[str, float]:
    """Prefill prompts and decode greedily with the KV cache.

    Args:
        model: A language model.
        prompt: Token ids, shape (B, S).
        shape: Where the image tokens are, and how many tokens to decode.
    Returns:
        Time to the first token, decoded tokens per second of the whole batch, and on a GPU the
        peak memory, weights included.
    """
    device = prompt.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = now(device)
    with eah.image_tokens(model, shape.span):
        output = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1:].argmax(-1)  # (B, 1, V) -> (B, 1)
    first = now(device)
    for _ in range(shape.new_tokens):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    decoded = shape.new_tokens * prompt.shape[0]
    result = {
        "time to first token, ms": 1000 * (first - start),
        "decoding, tokens/s": decoded / (now(device) - first),
    }
    if device.type == "cuda":
        result["peak memory, MiB"] = torch.cuda.max_memory_allocated(device) / MIB
    return result


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
