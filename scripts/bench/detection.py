"""What it costs to find the image tokens of a prompt, compared with one of its decoder layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from eah.detection import EmbeddingRows, image_rows
from scripts.bench.model import now
from scripts.bench.released import LayerShape
from scripts.bench.rounds import Arm

VOCABULARY: Final = 32000
MLP_WIDTHS: Final = 11008 / 4096  # of LLaVA-1.5-7B


@torch.inference_mode()
def detection_arms(shape: LayerShape, device: torch.device) -> dict[str, Arm]:
    """Return rounds of one decoder layer, and of finding the image tokens of the same prompt."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    width = shape.heads * shape.size
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=int(width * MLP_WIDTHS),
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        vocab_size=VOCABULARY,
        attn_implementation="sdpa",
    )
    table = nn.Embedding(VOCABULARY, width, device=device, dtype=dtype)
    layer = LlamaDecoderLayer(config, 0).to(device, dtype).eval()
    embeds = table(torch.randint(VOCABULARY, (1, shape.tokens), device=device))
    embeds[:, slice(*shape.span)] = torch.randn_like(embeds[:, slice(*shape.span)])
    positions = torch.arange(shape.tokens, device=device)[None]
    rotary = LlamaRotaryEmbedding(config).to(device)(embeds, positions)
    rows = EmbeddingRows()

    def run_layer() -> None:
        layer(embeds, position_embeddings=rotary)

    def detect() -> None:
        known = rows.known(table, embeds)
        assert known is not None, "a plain table can be compared"
        image_rows(known, embeds, None)

    arms = {"one decoder layer": run_layer, "finding the image tokens": detect}
    return {name: partial(_time, run, device) for name, run in arms.items()}


@torch.inference_mode()
def _time(run: Callable[[], None], device: torch.device) -> dict[str, float]:
    start = now(device)
    run()
    return {"time, ms": 1000 * (now(device) - start)}
