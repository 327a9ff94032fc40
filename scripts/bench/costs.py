"""Measure what EAH costs: of a layer, of a whole model, of an evaluation.

    python scripts/bench/costs.py
    python scripts/bench/costs.py --device cuda:0 --markdown runs/h100.md --json runs/h100.json
    python scripts/bench/costs.py --device cuda:0 --sections model pope --minutes 5

Every arm runs in every round, so a slow minute of the machine affects all of them. Reported are
the median and the spread over the rounds, and the ratio to the first arm of the same round. The
files are written after every round, at most once a second: a bench that is stopped leaves every row
that was finished.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

from eval.command import finish
from eval.run.provenance import git_commit
from scripts.bench.devices import device_of
from scripts.bench.record import Record, add_output_flags
from scripts.bench.running import measure
from scripts.bench.sections import (
    DEEP_REPEATS,
    MODEL_SECTIONS,
    OWN_SECTIONS,
    SLOW_REPEATS,
)
from scripts.bench.vlm import MODELS


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
    """Return the processor's name on Linux, elsewhere its architecture."""
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
        "model, decode, pope, chair, long: whole models with random "
        "weights, at the papers' sizes; on a CPU, LLaVA of 8 layers and width 1024. Nothing is "
        "downloaded. On a CPU that has other work to do, set OMP_NUM_THREADS to the cores that "
        "are free: with more threads, every arm waits, and EAH, which is made of more steps, "
        "waits longest.",
    )
    parser.add_argument(
        "--device",
        type=device_of,
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
    parser.add_argument(
        "--minutes",
        type=float,
        help="how long the bench may take: sections share the time, and run as many rounds as fit, "
        "--repeats at most; where not even one fits, the table says so (no limit)",
    )
    sections = (*OWN_SECTIONS, *MODEL_SECTIONS)
    parser.add_argument(
        "--sections", nargs="+", choices=sections, default=sections, help="what to measure (all)"
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, help="on a GPU (all); a CPU has the reduced LLaVA"
    )
    add_output_flags(parser)
    parser.add_argument(
        "--tiny", action="store_true", help="toy sizes: shows that the command runs, nothing else"
    )
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: at least one round is needed")
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        parser.error(f"--minutes {args.minutes}: name a number above 0, or leave it out")
    if args.models and args.device.type != "cuda":
        parser.error("--models: whole models run on a GPU; leave it out for the reduced LLaVA")
    return args


def run(args: argparse.Namespace) -> int:
    """Measure the chosen sections; the tables go to stdout, progress to stderr.

    Returns:
        The exit status: 1 if something failed.
    """
    record = Record(environment(args.device), args.json, args.markdown, overwrite=args.overwrite)
    with record.print_at_end():
        measure(
            args.sections,
            args.models or MODELS,
            args.device,
            args.repeats,
            60 * args.minutes if args.minutes else math.inf,
            record,
            tiny=args.tiny,
        )
    return record.status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parse(arguments)
    files = [str(path) for path in (args.json, args.markdown) if path]
    where = " and in ".join(["the table above", *files])
    return finish("bench", lambda: run(args), interrupted=f"every finished row is in {where}")


if __name__ == "__main__":
    sys.exit(main())
