"""The cost of counting sinks, from short prompts to long ones.

    python scripts/bench/counting.py --tokens 4096    # extra memory, in bytes

Every head's softmax needs all keys of a row, so time grows with tokens times keys. If most of the
prompt is the image, as here, that is tokens times image columns. Memory grows with tokens.
"""

from __future__ import annotations

import argparse
import gc
from functools import partial
from typing import Final

import torch

from eah.method import column_sums
from eah.operators import image_sums
from eah.visibility import Visibility
from scripts.bench.model import now
from scripts.bench.released import LayerShape, make_layer, resident_bytes
from scripts.bench.rounds import Arm

TOKENS: Final = (640, 1024, 2048, 4096, 8192, 16384)
TEXT: Final = 64  # text tokens


def counting_arms(heads: int, device: torch.device) -> dict[str, Arm]:
    """Return one round per prompt length."""
    shapes = {f"S {tokens}": LayerShape(heads=heads, tokens=tokens) for tokens in TOKENS}
    return {name: partial(_time, shape, device) for name, shape in shapes.items()}


@torch.inference_mode()
def _time(shape: LayerShape, device: torch.device) -> dict[str, float]:
    layer = make_layer(shape, device)
    columns = shape.tokens - TEXT
    image = torch.arange(shape.tokens, device=device)[None] < columns
    start = now(device)
    image_sums(layer.query, layer.key, Visibility(), scaling=shape.size**-0.5, image=image)
    seconds = now(device) - start
    return {
        "time, ms": 1000 * seconds,
        "time per token and image column, ns": 1e9 * seconds / shape.tokens / columns,
    }


@torch.inference_mode()
def extra_bytes(shape: LayerShape) -> int:
    """Measure peak resident memory over the inputs, on the CPU, in a fresh process."""
    few = make_layer(LayerShape(heads=shape.heads, tokens=64, size=shape.size), torch.device("cpu"))
    column_sums(few.query, few.key, Visibility(), scaling=1.0)  # threads and libraries
    layer = make_layer(shape, torch.device("cpu"))
    gc.collect()
    before = resident_bytes("VmRSS")
    column_sums(layer.query, layer.key, Visibility(), scaling=shape.size**-0.5)
    return resident_bytes("VmHWM") - before


def main() -> None:
    """Print the extra memory of counting, in bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("heads", "tokens", "size"):
        parser.add_argument(f"--{name}", type=int, default=getattr(LayerShape(), name))
    args = parser.parse_args()
    print(extra_bytes(LayerShape(args.heads, args.tokens, args.size)))


if __name__ == "__main__":
    main()
