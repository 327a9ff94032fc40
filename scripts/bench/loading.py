"""Compare loading a folder with `from_pretrained` alone: processor time and peak memory.

    python scripts/bench/loading.py

Makes a random LLaVA of about 1 GB and loads it alternately in fresh processes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

import models
from models.settings import ROOT

WAYS: Final = ("from_pretrained", "models.load")
MIB: Final = 1 << 20


def make_folder(folder: Path, width: int = 1024, layers: int = 16) -> None:
    """Write a LLaVA with random weights, 1.09 GB at the default size."""
    text = {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": width,
        "intermediate_size": width * 43 // 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
    }
    vision = {"model_type": "clip_vision_model", "hidden_size": 256, "num_hidden_layers": 4}
    vision |= {"intermediate_size": 512, "num_attention_heads": 4, "image_size": 336}
    vision |= {"patch_size": 14}
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
    model.save_pretrained(folder, max_shard_size="500MB")
    shutil.copy(ROOT / "models/tiny-llava/tokenizer.model", folder)


def load(way: str, folder: str) -> tuple[float, float]:
    """Load once, read every weight, and return seconds of processor time and peak MiB."""
    models.wrapper_of(models.model_settings("llava-1.5"))  # not measured: imports
    process = psutil.Process()
    before, start = process.memory_info().rss, time.process_time()
    if way == "models.load":
        model = models.load("llava-1.5", checkpoint=folder, device="cpu", dtype="float32").model
    else:
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    # Weights are memory-mapped until they are read.
    sum(float(parameter.detach().sum()) for parameter in model.parameters())
    seconds = time.process_time() - start
    return seconds, (process.memory_info().rss - before) / MIB


def main() -> None:
    """Run the command."""
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    flags.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    given = flags.parse_args()
    if given.one:
        print(*load(*given.one))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for number in range(2 * given.repeats):
            way = WAYS[number % 2]
            command = [sys.executable, __file__, "--one", way, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[way].append([float(word) for word in done.stdout.split()])
    for way, rounds in found.items():
        seconds, memory = (statistics.median(numbers) for numbers in zip(*rounds, strict=True))
        print(f"{way}: {seconds:.3f} s of processor time, {memory:.0f} MiB (medians)")


if __name__ == "__main__":
    main()
