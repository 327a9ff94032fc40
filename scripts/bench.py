"""Measure what EAH costs: time and memory of a layer, speed and memory of a whole model.

    python scripts/bench.py
    python scripts/bench.py --device cuda:0 --sections model --json runs/bench.json

Every arm runs in every round, so that a slow minute of the machine meets all of them. Reported are
the median and the spread over the rounds, and the ratio to the first arm of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from scripts import bench_released
from scripts.bench_model import MIB, ModelShape, make_model, model_arms, now
from scripts.bench_released import WAYS, LayerShape, make_layer
from scripts.bench_rows import Row, interleave, table

SECTIONS: Final = ("layer", "memory", "model")
SLOW_ON_CPU: Final = ("memory", "model")
SLOW_REPEATS: Final = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured in each section."""

    layer: LayerShape
    memory: LayerShape
    model: ModelShape


FULL: Final = Sizes(LayerShape(), LayerShape(tokens=4096), ModelShape())
SMALL: Final = ModelShape(4, 1024, 8, 2752, vocabulary=8000, new_tokens=8, batches=(1, 2))
TINY: Final = Sizes(
    LayerShape(heads=2, size=16),
    LayerShape(heads=2, size=16),
    ModelShape(2, 32, 2, 64, vocabulary=100, prompt=24, span=(4, 20), new_tokens=2, batches=(1,)),
)


def bench_layer(sizes: Sizes, device: torch.device, repeats: int) -> list[Row]:
    """Time one layer's attention at prefill: plain, EAH, released."""
    shape = sizes.layer
    layer = make_layer(shape, device)

    @torch.inference_mode()
    def run(way: str) -> dict[str, float]:
        start = now(device)
        WAYS[way](layer, shape)
        return {"time, ms": 1000 * (now(device) - start)}

    return interleave(_title(shape), {way: partial(run, way) for way in WAYS}, repeats)


def bench_memory(sizes: Sizes, device: torch.device, repeats: int) -> list[Row]:
    """Measure a layer's peak memory over its inputs and output."""
    measure = partial(_extra_on_gpu, device) if device.type == "cuda" else _extra_on_cpu

    def run(way: str) -> dict[str, float]:
        return {"extra memory, MiB": measure(way, sizes.memory) / MIB}

    arms = {way: partial(run, way) for way in WAYS}
    rows = interleave(_title(sizes.memory), arms, repeats, warm_up=0)
    return [replace(row, ratios=()) for row in rows]  # plain attention needs next to nothing


def bench_model(sizes: Sizes, device: torch.device, repeats: int) -> list[Row]:
    """Time prefill and decoding of a whole language model, per batch size."""
    shape = sizes.model
    model = make_model(shape, device)
    rows: list[Row] = []
    for batch in shape.batches:
        title = f"model, {shape.layers} layers, width {shape.hidden}, batch {batch}"
        rows += interleave(title, model_arms(model, shape, batch), repeats)
    return rows


def _title(shape: LayerShape) -> str:
    return f"layer, H {shape.heads}, S {shape.tokens}, D {shape.size}"


def _extra_on_cpu(way: str, shape: LayerShape) -> float:
    """Measure in a fresh process: memory that a process once had would hide what follows."""
    root = str(Path(bench_released.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, bench_released.__file__, way]
    for name in ("heads", "tokens", "size"):
        command += [f"--{name}", str(getattr(shape, name))]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


@torch.inference_mode()
def _extra_on_gpu(device: torch.device, way: str, shape: LayerShape) -> float:
    layer = make_layer(shape, device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = WAYS[way](layer, shape)
    return torch.cuda.max_memory_allocated(device) - before - output.nbytes


def environment(device: torch.device) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"CPU, {_processor()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _processor() -> str:
    """Return the processor's name where Linux tells it, else its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="layer, memory: plain attention, EAH (preset paper) and the way of the authors' "
        "release, at LLaVA-1.5-7B's shape with random inputs. model: a language model of "
        "LLaVA-1.5-7B's shape with random weights, on a CPU one of 4 layers and width 1024. "
        "Nothing is downloaded. On a CPU that has other work to do, set OMP_NUM_THREADS to the "
        "cores that are free: with more threads, every arm waits, and EAH, which is made of more "
        "steps, waits longest.",
    )
    parser.add_argument(
        "--device",
        type=torch.device,
        default=torch.device("cuda:0" if torch.cuda.is_available() else "cpu"),
        help="cpu, cuda:0, ... (default: the first GPU if there is one)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=11,
        help=f"rounds (default 11; memory and model on a CPU run {SLOW_REPEATS} at most)",
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        help="what to measure (default: all on a GPU, layer and memory on a CPU)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's number here")
    parser.add_argument(
        "--tiny", action="store_true", help="toy sizes: shows that the command runs, nothing else"
    )
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: at least one round is needed")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen sections; the table goes to stdout, progress to stderr."""
    args = parse(arguments)
    on_gpu = args.device.type == "cuda"
    sizes = TINY if args.tiny else FULL if on_gpu else replace(FULL, model=SMALL)
    bench = {"layer": bench_layer, "memory": bench_memory, "model": bench_model}
    rows: list[Row] = []
    for section in args.sections or (SECTIONS if on_gpu else SECTIONS[:2]):
        is_slow = not on_gpu and section in SLOW_ON_CPU
        repeats = min(args.repeats, SLOW_REPEATS) if is_slow else args.repeats
        rows += bench[section](sizes, args.device, repeats)
    around = environment(args.device)
    print("; ".join(f"{name} {value}" for name, value in around.items()), table(rows), sep="\n\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": around, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
