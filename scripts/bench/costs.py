"""Measure what EAH costs: of a layer, of a whole model, of an evaluation.

    python scripts/bench/costs.py
    python scripts/bench/costs.py --device cuda:0 --markdown runs/h100.md --json runs/h100.json

Every arm runs in every round, so that a slow minute of the machine meets all of them. Reported are
the median and the spread over the rounds, and the ratio to the first arm of the same round.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from eval.command import finish
from eval.files.writing import write_atomically
from eval.run.provenance import git_commit
from models.base import VLM
from scripts.bench.rows import table
from scripts.bench.sections import (
    CPU,
    DEEP_REPEATS,
    GPU,
    MODEL_SECTIONS,
    OWN_SECTIONS,
    SLOW_REPEATS,
    TINY,
    Result,
)
from scripts.bench.vlm import MODELS, make_vlm, reduced_config


def environment(device: torch.device) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"CPU, {_processor()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "commit": git_commit() or "unknown",
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
        description=(__doc__ or "").splitlines()[0],
        epilog="layer, memory, counting, detection: one layer of LLaVA-1.5-7B's shape: plain, with "
        "EAH, and as the authors released it. methods: every decoding method, on a LLaVA of 32 "
        "layers; on a CPU, of width 256. observe: a prefill of it with all layers observed. "
        "model, pope, chair, long: whole models with random "
        "weights, at the papers' sizes; on a CPU, LLaVA of 8 layers and width 1024. Nothing is "
        "downloaded. On a CPU that has other work to do, set OMP_NUM_THREADS to the cores that "
        "are free: with more threads, every arm waits, and EAH, which is made of more steps, "
        "waits longest.",
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
        help=f"rounds (default 11; on a CPU all but layer run {SLOW_REPEATS} at most, methods "
        f"and observe {DEEP_REPEATS})",
    )
    sections = (*OWN_SECTIONS, *MODEL_SECTIONS)
    parser.add_argument(
        "--sections", nargs="+", choices=sections, default=sections, help="what to measure (all)"
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, help="on a GPU (all); a CPU has the reduced LLaVA"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's number here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed here")
    parser.add_argument(
        "--tiny", action="store_true", help="toy sizes: shows that the command runs, nothing else"
    )
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: at least one round is needed")
    if args.models and args.device.type != "cuda":
        parser.error("--models: whole models run on a GPU; leave it out for the reduced LLaVA")
    return args


def vlms(args: argparse.Namespace) -> dict[str, Callable[[], VLM]]:
    """Return what builds each model of the run, by name."""
    if args.device.type == "cuda" and not args.tiny:
        names = args.models or MODELS
        return {name: partial(make_vlm, name, args.device) for name in names}
    config = reduced_config(tiny=args.tiny)
    return {"llava-1.5": partial(make_vlm, "llava-1.5", args.device, config)}


def measure(args: argparse.Namespace) -> Result:
    """Measure the chosen sections."""
    sizes = TINY if args.tiny else GPU if args.device.type == "cuda" else CPU
    results = [
        run(sizes, args.device, args.repeats)
        for section, run in OWN_SECTIONS.items()
        if section in args.sections
    ]
    if set(MODEL_SECTIONS) & set(args.sections):
        for name, build in vlms(args).items():
            vlm = build()
            results += [
                run(sizes, vlm, name, args.repeats)
                for section, run in MODEL_SECTIONS.items()
                if section in args.sections
            ]
    return [row for rows, _ in results for row in rows], [
        line for _, lines in results for line in lines
    ]


def run(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen sections; the tables go to stdout, progress to stderr."""
    args = parse(arguments)
    rows, lines = measure(args)
    around = environment(args.device)
    text = "\n\n".join(
        ["; ".join(f"{name} {value}" for name, value in around.items()), table(rows), *lines]
    )
    content = {"environment": around, "rows": [asdict(row) for row in rows], "compared": lines}
    for path, written in ((args.json, json.dumps(content, indent=1)), (args.markdown, text)):
        if path:
            write_atomically(path, written + "\n")
    print(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("bench", lambda: run(arguments), interrupted="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
