"""Flags that every command has that asks a model, laid over YAML and defaults."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from eval.errors import EvaluationError
from eval.run.arms import arms_of
from eval.run.flag_parser import FlagParser
from eval.run.settings import DEFAULT_SEED, RunSettings, merge
from models.methods import read_methods
from models.settings import available, read_yaml
from models.yaml_files import parse_yaml

PARTS: Final = {
    "llm": "language model: a folder or hub id instead of the config's",
    "vision": "vision tower: CLIP's folder or hub id, or eva_vit_g.pth",
    "qformer": "Q-Former's file, of InstructBLIP and MiniGPT-4",
    "projector": "MiniGPT-4's projector file",
    "qformer_tokenizer": "BERT's tokenizer, for InstructBLIP",
}
Settings = TypeVar("Settings", bound=RunSettings)


class Parser(FlagParser):
    """A parser with the flags that every command has that asks a model."""

    def __init__(self, documentation: str, *, table: bool = True) -> None:
        """Start with the common flags.

        Args:
            documentation: As `FlagParser` takes it.
            table: Whether the command prints a table of arms.
        """
        super().__init__(documentation)
        if table:
            flag = self.flag
            flag("--reference", metavar="ARM", group="arms", help="compare with this (baseline)")
            flag(
                "--repeats",
                type=int,
                group="running",
                help="so many runs, of seeds 0, 1, ...: mean and standard deviation (1)",
            )
            flag("--wide", action="store_true", group="output", help="print all numbers")
            flag(
                "--skip-unreadable",
                action="store_true",
                group="data",
                help="leave out pictures that can't be read (an error)",
            )
        add_model_flags(self)
        _add_arms(self)
        add_running_flags(self)


def resolve(defaults: Settings, given: dict[str, Any]) -> Settings:
    """Lay YAML, `--options` and flags over the defaults.

    Raises:
        EvaluationError: If a name is unknown, or a value or an arm not allowed.
        ModelError: If there is no such model.
    """
    settings = defaults
    if "config" in given:
        path = given.pop("config")
        settings = merge(settings, read_yaml(path), str(path))  # type: ignore[assignment]  # replace() keeps the class
    options = given.pop("options", [])
    settings = merge(settings, dict(_option(text) for text in options), "--options")  # type: ignore[assignment]
    if "gpu_id" in given:
        device = _device_of(given.pop("gpu_id"))
        if given.setdefault("device", device) != device:
            raise EvaluationError(
                f"--device {given['device']} and --gpu-id ({device}) disagree; give one of them"
            )
    settings = merge(settings, given, "command line")  # type: ignore[assignment]
    if settings.model == "auto":
        from models.loading import recognise  # loads torch, which takes seconds

        settings = replace(settings, model=recognise(settings.model, settings.checkpoint))
    arms_of(settings)  # raises now, not seconds later when torch is there
    return settings


def add_model_flags(parser: FlagParser, **model: Any) -> None:
    """Add the flags that name a model and how it is loaded.

    Args:
        parser: The command's.
        model: Options of the flags of the model and its checkpoint that differ.
    """

    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="model", **options)

    known = ", ".join(name for name in available() if name != "hf")
    text = f"hf: any of transformers; auto: by its config; {known} (llava-1.5)"
    flag("--model", help=text, **model)
    flag("--checkpoint", help="folder or hub id instead of the config's", **model)
    for part, text in PARTS.items():
        flag(f"--{part.replace('_', '-')}", help=text)
    flag("--converted", help="folder that original files are converted to, once (in the cache)")
    flag(
        "--protocol",
        help="prompt, pixels and answer length: opera, official; of hf: chat, chat-short",
    )
    flag("--system", metavar="TEXT", help="system message, for --model hf (the template's own)")
    flag("--dtype", help="float32, float16, bfloat16, mixed (as the paper's wrapper), auto")
    flag("--quantization", help="8bit or 4bit weights; the four's towers are left whole (neither)")
    flag("--gpu-id", type=int, help="GPU number; -1 is the CPU (first GPU if there is one)")
    flag("--device", help="cpu, cuda:N, or auto to spread the model over all GPUs")


def _add_arms(parser: Parser) -> None:
    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="arms", **options)

    flag(
        "--method",
        nargs="+",
        metavar="ARM",
        help=f"baseline, eah, {', '.join(read_methods())}, or one of these with +eah; settings "
        "follow an @: eah@layers=2,threshold=0.001 (baseline eah)",
    )
    flag(
        "--sweep",
        nargs="+",
        metavar="KEY=V1,V2",
        help="one arm for each point of a grid: layers=0,1,2 threshold=0.001,0.002",
    )
    add_eah_flags(parser)
    flag("--scale_factor", type=float, help="OPERA: factor on attention (50)")
    flag("--threshold", type=_steps, help="OPERA: steps before a rollback (15)")
    flag("--num_attn_candidates", type=int, help="OPERA: tokens looked at (5)")
    flag("--penalty_weights", type=float, help="OPERA: weight of the penalty (1)")
    flag(
        "--method-settings",
        nargs="+",
        metavar="METHOD.SETTING=VALUE",
        help="settings of a method in all its arms, such as vcd.alpha=0.5",
    )


def add_eah_flags(parser: FlagParser, **threshold: Any) -> None:
    """Add the flags of EAH's settings.

    Args:
        parser: The command's.
        threshold: Options of the threshold's flag that differ.
    """

    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="arms", **options)

    flag("--preset", help="EAH preset: paper, released-code, scale-free (the config's)")
    flag("--rule", help="EAH: paper, scale_free or released_code (the preset's)")
    flag("--LAYER_NUM", "--layers", dest="layers", type=int, nargs="+", help="EAH: layers from 0")
    flag("--HEAD_NUM", "--head", dest="head", type=_auto_or_number, help="EAH: auto, or one head")
    flag(
        *("--THRES", "--sink-threshold"),
        **{
            "dest": "sink_threshold",
            "type": float,
            "help": "EAH: mean attention above which an image token is a sink (0.002 in the paper)",
            **threshold,
        },
    )
    flag("--min-density", type=float, help="EAH: least share of sinks in the densest head (0)")
    flag(
        "--receivers",
        type=int,
        help="EAH: only so many heads get the map, fewest sinks first (all)",
    )


def add_running_flags(parser: FlagParser) -> None:
    """Add the flags that say how a model is asked, and where the answers go."""
    flag = parser.flag
    flag(
        "--data-path",
        type=Path,
        group="data",
        help="folder of the pictures, such as COCO's val2014",
    )
    flag("--limit", type=int, group="data", help="first N questions of each part, or pictures")
    flag(
        "--seed",
        type=int,
        group="data",
        help=f"of chosen pictures, built questions, noise and sampling ({DEFAULT_SEED})",
    )
    flag("--beam", "--num-beams", dest="beam", type=int, group="decoding", help="beams (1: greedy)")
    flag("--sample", action="store_true", group="decoding", help="nucleus sampling, top-p 0.9")
    flag("--max-new-tokens", type=int, group="decoding", help="length of an answer (protocol's)")
    flag(
        "--batch-size",
        type=_auto_or_number,
        group="running",
        help="prompts generated together (8), or auto: as many as fit, at most 64, on a CPU 8",
    )
    flag(
        "--no-prefix-reuse",
        dest="prefix_reuse",
        action="store_false",
        group="running",
        help="run every prompt whole, also those about the same picture",
    )
    flag(
        "--compile",
        metavar="WHEN",
        group="running",
        help="decode by captured steps on a GPU: auto (where it pays), always (made by "
        "torch.compile, which takes a minute), never",
    )
    flag("--num-workers", type=int, group="running", help="processes that read pictures (GPU: 4)")
    flag("--dry-run", action="store_true", group="running", help="say what would be asked; stop")
    flag("--fresh", action="store_true", group="running", help="set the arms' answers aside first")
    flag(
        "--accept-old",
        action="store_true",
        group="running",
        help="go on with answers that other code or versions gave",
    )
    flag("--config", type=Path, group="running", help="YAML file of settings (flags win over it)")
    flag("--options", nargs="+", metavar="KEY=VALUE", group="running", help="settings by name")
    flag("--output-dir", type=Path, group="output", help="where run folders are made (runs)")
    flag("--json", type=Path, metavar="FILE", group="output", help="write all results here, too")
    parser.overwrite_flag()


def _steps(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is no number of steps, which OPERA's threshold is; EAH's own is --THRES"
        )
    return int(text)


def _auto_or_number(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r:.60} is neither auto nor a number")
    return int(text)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise EvaluationError(f"--options {text!r}: settings are written KEY=VALUE")
    if not value.strip():
        raise EvaluationError(f"--options {text!r}: the value is empty; null stands for none")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise EvaluationError(
            f"--options {text!r:.200}: the value can't be read as YAML ({error})"
        ) from error


def _device_of(gpu_id: int) -> str:
    if gpu_id < -1:
        raise EvaluationError(f"--gpu-id {gpu_id}: a GPU is a number from 0, and -1 is the CPU")
    return "cpu" if gpu_id == -1 else f"cuda:{gpu_id}"
