"""Ask POPE's questions as a plain transformers script does, as lmms-eval does, and as this project.

    python scripts/bench/peers.py --markdown runs/peers.md
    python scripts/bench/peers.py --device cuda:0 --checkpoint FOLDER

The same questions, prompts, checkpoint and machine, in one process, in turns; the answers are
compared. lmms-eval takes part where it is installed (`pip install lmms-eval decord`). On a CPU one
thread works, and its processor time is taken. Loading and the first question are not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig

from eval.command import RUN_ERRORS, finish
from scripts.bench.costs import environment
from scripts.bench.devices import device_of
from scripts.bench.evaluation import OBJECTS, write_pictures
from scripts.bench.model import work_time
from scripts.bench.peer_tools import Ask, Asked, lmms_eval, make_checkpoint, ours, plain_script
from scripts.bench.record import Record, add_output_flags
from scripts.bench.rounds import Arm, Measurement, reason_of, run_rounds
from scripts.bench.rows import Row

QUESTION: Final = "Is there a {} in the image?"
TOKENS: Final = 10
PLAIN: Final = "plain transformers script"
WAYS: Final[dict[str, Callable[[Asked], Ask]]] = {
    PLAIN: plain_script,
    "lmms-eval, llava_hf": lmms_eval,
    "this project": ours,
    "this project, EAH": partial(ours, eah=True),
}
SAME: Final = ("lmms-eval, llava_hf", "this project")  # answers; EAH's may differ


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument(
        "--device", type=device_of, default=torch.device("cpu"), help="cpu, cuda:0, ... (cpu)"
    )
    flags.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="of a LLaVA-1.5 in transformers' format (one with random weights is made: 8 layers of "
        "width 1024, 576 image tokens)",
    )
    flags.add_argument("--pictures", type=int, default=3, help="of six questions each (3)")
    flags.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    add_output_flags(flags)
    flags.add_argument("--tiny", action="store_true", help="toy sizes: shows that it runs")
    args = flags.parse_args(arguments)
    for name in ("pictures", "repeats"):
        if getattr(args, name) < 1:
            flags.error(f"--{name} {getattr(args, name)}: at least 1 is needed")
    if args.tiny and args.checkpoint:
        flags.error("--tiny makes its own checkpoint; leave it or --checkpoint out")
    if args.checkpoint and not (args.checkpoint / "config.json").is_file():
        flags.error(f"--checkpoint {args.checkpoint}: a folder with a config.json is needed")
    return args


def measure(asked: Asked, repeats: int, record: Record) -> None:
    """Ask all questions in every way, and compare the answers with those of the plain script."""
    answers: dict[str, list[str]] = {}
    arms: dict[str, Arm] = {}
    left_out: dict[str, str] = {}
    for name, way in WAYS.items():
        try:
            ask = way(asked)
        except ImportError as error:
            left_out[name] = reason_of(error)
            continue
        ask(1)
        arms[name] = partial(_time, asked, name, ask, answers)

    def lines(_: Sequence[Row]) -> list[str]:
        return [differences(answers, name) for name in SAME if {PLAIN, name} <= answers.keys()]

    this = Measurement(title_of(asked), arms, warm_up=0, left_out=left_out)
    rows = run_rounds(this, repeats, finished=record.update)
    record.add(rows, lines(rows))


def title_of(asked: Asked) -> str:
    """Return what is asked of what."""
    config = AutoConfig.from_pretrained(asked.checkpoint)
    text, count = config.text_config, len(asked.questions)
    return (
        f"{count} questions about {count // len(OBJECTS)} pictures, LLaVA of "
        f"{text.num_hidden_layers} layers and width {text.hidden_size}, {asked.dtype}"
    )


def differences(answers: dict[str, list[str]], name: str) -> str:
    """Return in a sentence how many answers of a way differ from the plain script's."""
    pairs = list(zip(answers[PLAIN], answers[name], strict=True))
    count = sum(plain.strip() != other.strip() for plain, other in pairs)
    return (
        f"{name}: {count} of {len(pairs)} answers differ from those of the {PLAIN}, "
        f"which gave {len(set(answers[PLAIN]))} different ones."
    )


def _time(asked: Asked, name: str, ask: Ask, answers: dict[str, list[str]]) -> dict[str, float]:
    """Answer all questions once, and return the time; keep the answers."""
    start = work_time(asked.device)
    answers[name] = ask(len(asked.questions))
    seconds = work_time(asked.device) - start
    return {"time, s" if asked.device.type == "cuda" else "processor time, s": seconds}


def run(args: argparse.Namespace) -> int:
    """Measure; the table goes to stdout, progress to stderr. Returns 1 if a way failed."""
    if args.device.type == "cpu":
        torch.set_num_threads(1)
    around = environment(args.device)
    if "lmms_eval" in packages_distributions():
        around["lmms-eval"] = version("lmms-eval")
    record = Record(around, args.json, args.markdown, overwrite=args.overwrite)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, pictures = args.checkpoint or Path(folder, "model"), Path(folder, "pictures")
        pictures.mkdir()
        if args.checkpoint is None:
            make_checkpoint(checkpoint, tiny=args.tiny)
        questions = [
            (name, QUESTION.format(thing))
            for name in write_pictures(pictures, args.pictures)
            for thing in OBJECTS
        ]
        with record.print_at_end():
            asked = Asked(checkpoint, pictures, questions, TOKENS, args.device)
            measure(asked, args.repeats, record)
    return record.status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parse(arguments)
    kept = "every finished round is in the table above and in the files that were named"
    return finish("peers", lambda: run(args), *RUN_ERRORS, interrupted=kept)


if __name__ == "__main__":
    sys.exit(main())
