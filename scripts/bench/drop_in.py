"""The cost of the drop-in in the transformers that it is swapped into, as ratios of one run.

    PYTHON scripts/bench/drop_in.py     # with a swapped install's PYTHON; prints "prefill | decode"

Prefill of 640 embeddings, of which EAH finds 576 image tokens, and 32 decode steps; 4 layers of
width 1024, EAH in one of them, against the original file loaded once more in the same process;
interleaved, median ratio and its range.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

LENGTH, STEPS, REPEATS = 640, 32, 9
IMAGE = slice(35, 611)  # LLaVA-1.5's


def models() -> tuple[Any, Any]:
    """Return the model with EAH and the original's, with the same weights."""
    import torch
    import transformers
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama

    name = "transformers.models.llama.plain_llama"
    path = Path(modeling_llama.__file__).with_name("modeling_llama_original.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    sys.modules[name] = plain
    with redirect_stdout(sys.stderr):  # transformers complains about an unknown name
        spec.loader.exec_module(plain)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=1024,
        intermediate_size=2752,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 36):
        config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    ours = modeling_llama.LlamaForCausalLM(config).eval()
    other = plain.LlamaForCausalLM(config).eval()
    other.load_state_dict(ours.state_dict())
    return ours, other


def times(model: Any) -> tuple[float, float]:
    """Return seconds of a prefill, and of decode steps after it."""
    import torch

    ids = torch.arange(LENGTH)[None] % 1000
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        embeds[:, IMAGE] = torch.randn_like(embeds[:, IMAGE]) * embeds.std()
        start = time.perf_counter()
        past = model(inputs_embeds=embeds, use_cache=True).past_key_values
        middle = time.perf_counter()
        for _ in range(STEPS):
            past = model(input_ids=ids[:, :1], past_key_values=past, use_cache=True).past_key_values
        return middle - start, time.perf_counter() - middle


def main() -> None:
    """Measure and print the two ratios."""
    os.environ.update(EAH_PRESET="paper", EAH_LAYERS="1", EAH_IMAGE_SPAN="auto")
    ours, other = models()
    pairs = []
    for repeat in range(REPEATS + 1):
        order = [(0, ours), (1, other)] if repeat % 2 else [(1, other), (0, ours)]
        measured = {index: times(model) for index, model in order}
        pairs.append([a / b for a, b in zip(measured[0], measured[1], strict=True)])
    cells = [
        f"{statistics.median(column):.2f} ({min(column):.2f}..{max(column):.2f})"
        for column in zip(*pairs[1:], strict=True)  # the first run warms up
    ]
    print(" | ".join(cells))


if __name__ == "__main__":
    main()
