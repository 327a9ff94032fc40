"""Flags shared by all commands that run a model, and how they override YAML and defaults."""

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
    "llm": "language model: folder or hub id",
    "vision": "vision tower: folder or hub id of CLIP, or eva_vit_g.pth",
    "qformer": "Q-Former file of InstructBLIP or MiniGPT-4",
    "projector": "projector file of MiniGPT-4",
    "qformer_tokenizer": "BERT tokenizer for InstructBLIP",
}
Settings = TypeVar("Settings", bound=RunSettings)


class Parser(FlagParser):
    """A parser with the flags of all commands that run a model."""

    def __init__(self, documentation: str, *, table: bool = True) -> None:
        """Start with the common flags.

        Args:
            documentation: As in `FlagParser`.
            table: Whether the command prints a table of arms.
        """
        super().__init__(documentation)
        if table:
            flag = self.flag
            flag("--reference", metavar="ARM", group="arms",
                 help="arm that the others are compared with (default: baseline)")  # fmt: skip
            flag("--repeats", type=int, group="running", help="number of runs, seeds 0 to N-1; "
                 "prints mean and standard deviation (default: 1)")  # fmt: skip
            flag("--wide", action="store_true", group="output", help="print all metrics")
            flag("--skip-unreadable", action="store_true", group="data",
                 help="skip unreadable pictures (default: stop with an error)")  # fmt: skip
        add_model_flags(self)
        _add_arms(self)
        add_running_flags(self)


def resolve(defaults: Settings, given: dict[str, Any]) -> Settings:
    """Override the defaults with YAML, then `--options`, then flags.

    Raises:
        EvaluationError: If a name is unknown, or a value or an arm is not allowed.
        ModelError: If the model is unknown.
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
                f"--device {given['device']} and --gpu-id ({device}) disagree; pass one of them"
            )
    settings = merge(settings, given, "command line")  # type: ignore[assignment]
    if settings.model == "auto":
        from models.loading import recognise  # imported late: loads torch, which takes seconds

        settings = replace(settings, model=recognise(settings.model, settings.checkpoint))
    arms_of(settings)  # raises before torch is loaded, which takes seconds
    return settings


def add_model_flags(parser: FlagParser, **model: Any) -> None:
    """Add the flags that name a model and how it is loaded.

    Args:
        parser: The command's parser.
        model: Options that override those of --model and --checkpoint.
    """

    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="model", **options)

    known = ", ".join(name for name in available() if name != "hf")
    flag("--model", help=f"{known}; hf: any model of transformers; auto: read from the "
         "checkpoint's config (default: llava-1.5)", **model)  # fmt: skip
    flag("--checkpoint", help="folder or hub id (default: the config's)", **model)
    for part, text in PARTS.items():
        flag(f"--{part.replace('_', '-')}", help=f"{text} (default: the config's)")
    flag("--converted", help="folder for converted original files (default: in the cache)")
    flag("--protocol", help="prompt, preprocessing and answer length: opera or official; for hf: "
         "chat or chat-short (default: the config's)")  # fmt: skip
    flag("--system", metavar="TEXT", help="system message, for hf (default: the chat template's)")
    flag("--dtype", help="float32, float16, bfloat16, mixed (as the paper's code), or auto "
         "(default: the config's)")  # fmt: skip
    flag("--quantization", help="8bit or 4bit weights in the language model (default: neither)")
    flag(
        "--gpu-id", type=int, help="GPU number, or -1 for the CPU (default: the first GPU, if any)"
    )
    flag("--device", help="cpu, cuda:N, or auto to spread the model over all GPUs")


def _add_arms(parser: Parser) -> None:
    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="arms", **options)

    flag("--method", nargs="+", metavar="ARM", help=f"baseline, eah, {', '.join(read_methods())}, "
         "or one of these with +eah; settings follow an @: eah@layers=2,threshold=0.001 (default: "
         "baseline eah)")  # fmt: skip
    flag("--sweep", nargs="+", metavar="KEY=V1,V2", help="one arm for each point of a grid: "
         "layers=0,1,2 threshold=0.001,0.002")  # fmt: skip
    add_eah_flags(parser)
    flag("--scale_factor", type=float, help="OPERA: factor on attention (default: 50)")
    flag(
        "--threshold", type=_steps, metavar="N", help="OPERA: steps before a rollback (default: 15)"
    )
    flag("--num_attn_candidates", type=int, help="OPERA: candidate tokens per beam (default: 5)")
    flag("--penalty_weights", type=float, help="OPERA: weight of the penalty (default: 1)")
    flag("--method-settings", nargs="+", metavar="METHOD.SETTING=VALUE",
         help="settings of a method in all its arms, such as vcd.alpha=0.5")  # fmt: skip


def add_eah_flags(parser: FlagParser, **threshold: Any) -> None:
    """Add the flags of EAH's settings.

    Args:
        parser: The command's parser.
        threshold: Options that override those of --THRES.
    """

    def flag(*names: str, **options: Any) -> None:
        parser.flag(*names, group="arms", **options)

    flag("--preset", help="EAH: paper, released-code or scale-free (default: the config's)")
    flag("--rule", help="EAH: paper, scale_free or released_code (default: the preset's)")
    flag("--LAYER_NUM", "--layers", dest="layers", type=int, nargs="+",
         help="EAH: layers, counted from 0 (default: the preset's)")  # fmt: skip
    flag("--HEAD_NUM", "--head", dest="head", type=_auto_or_number, metavar="N",
         help="EAH: head whose map is shared, or auto: the densest (default: auto)")  # fmt: skip
    own = {"dest": "sink_threshold", "type": float, "help": "EAH: mean attention above which an "
           "image token is a sink (paper: 0.002; default: the preset's)"}  # fmt: skip
    flag("--THRES", "--sink-threshold", **{**own, **threshold})
    flag("--min-density", type=float, help="EAH: smallest share of sinks in the densest head, from "
         "0 to 1 (default: 0)")  # fmt: skip
    flag("--receivers", type=int, help="EAH: number of heads that get the map, those with fewest "
         "sinks first (default: all)")  # fmt: skip


def add_running_flags(parser: FlagParser) -> None:
    """Add the flags for pictures, decoding, running and output."""
    flag = parser.flag
    flag(
        "--data-path",
        type=Path,
        group="data",
        help="folder of the pictures, such as COCO's val2014",
    )
    flag("--limit", type=int, group="data", help="use the first N questions of each part, or the "
         "first N pictures to caption (default: all)")  # fmt: skip
    flag("--seed", type=int, group="data", help="seed of picture choice, built questions, noise "
         f"and sampling (default: {DEFAULT_SEED})")  # fmt: skip
    flag("--beam", "--num-beams", dest="beam", type=int, group="decoding",
         help="number of beams; 1 is greedy decoding (default: 1)")  # fmt: skip
    flag("--sample", action="store_true", group="decoding", help="nucleus sampling with top-p 0.9")
    flag("--max-new-tokens", type=int, group="decoding",
         help="longest answer, in tokens (default: the protocol's)")  # fmt: skip
    flag("--batch-size", type=_auto_or_number, metavar="N", group="running", help="prompts per "
         "batch, or auto: as many as fit, up to 64 on a GPU, 8 on a CPU (default: 8)")  # fmt: skip
    flag("--no-prefix-reuse", dest="prefix_reuse", action="store_false", group="running",
         help="prefill every prompt in full, without cached prefixes of its picture")  # fmt: skip
    flag("--compile", metavar="WHEN", group="running", help="capture decode steps on a GPU: auto "
         "(if supported), always (by torch.compile, which takes a minute), or never (default: auto)"
         )  # fmt: skip
    flag("--num-workers", type=int, group="running",
         help="processes that read pictures (default: 4 with a GPU, else 0)")  # fmt: skip
    flag("--dry-run", action="store_true", group="running", help="print what would be asked; stop")
    flag("--fresh", action="store_true", group="running",
         help="move recorded answers of the arms aside, and ask again")  # fmt: skip
    flag("--accept-old", action="store_true", group="running",
         help="continue with answers of other code or package versions")  # fmt: skip
    flag("--config", type=Path, group="running", help="YAML file of settings; flags override it")
    flag("--options", nargs="+", metavar="KEY=VALUE", group="running",
         help="settings by name; they override --config, and flags override them")  # fmt: skip
    flag("--output-dir", type=Path, group="output", help="parent of run folders (default: runs)")
    flag("--json", type=Path, metavar="FILE", group="output", help="write all results to this file")
    parser.overwrite_flag()


def _steps(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is not a whole number; --threshold is OPERA's number of steps, and "
            "EAH's threshold is --THRES"
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
        raise EvaluationError(f"--options {text!r}: write settings as KEY=VALUE")
    if not value.strip():
        raise EvaluationError(f"--options {text!r}: the value is empty; write null for none")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise EvaluationError(
            f"--options {text!r:.200}: the value is not valid YAML ({error})"
        ) from error


def _device_of(gpu_id: int) -> str:
    if gpu_id < -1:
        raise EvaluationError(
            f"--gpu-id {gpu_id}: pass the number of a GPU, from 0, or -1 for the CPU"
        )
    return "cpu" if gpu_id == -1 else f"cuda:{gpu_id}"
