"""Flags that every command has that asks a model, laid over YAML and defaults."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from eval.errors import EvaluationError
from eval.run.arms import read_methods
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings, merge
from models.settings import model_settings, read_yaml

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

    def __init__(self, description: str) -> None:
        """Start with the common flags."""
        super().__init__(description)
        _add_common(self)


def resolve(defaults: Settings, given: dict[str, Any]) -> Settings:
    """Lay YAML, `--options` and flags over the defaults.

    Raises:
        EvaluationError: If a name is unknown, or a value not allowed.
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
    model_settings(settings.model)  # raises now, not seconds later when torch is there
    return settings


def _add_common(parser: Parser) -> None:
    parser.flag("--model", help="model in configs/, such as llava-1.5 or tiny-llava")
    parser.flag("--checkpoint", help="folder or hub id instead of the config's")
    for part, text in PARTS.items():
        parser.flag(f"--{part.replace('_', '-')}", help=text)
    parser.flag("--config", type=Path, help="YAML file of settings (flags win over it)")
    parser.flag("--options", nargs="+", metavar="KEY=VALUE", help="settings by name (flags win)")
    parser.flag("--protocol", help="prompt, preprocessing and answer length: opera, or the model's")
    names = ", ".join(read_methods())
    parser.flag(
        "--method",
        nargs="+",
        metavar="ARM",
        help=f"baseline, eah, {names}, or one of these with +eah (baseline eah)",
    )
    parser.flag(
        "--method-settings",
        nargs="+",
        metavar="METHOD.SETTING=VALUE",
        help="other settings than the published ones, such as vcd.alpha=0.5",
    )
    parser.flag("--data-path", type=Path, help="folder of the pictures, such as COCO's val2014")
    parser.flag("--gpu-id", type=int, help="GPU number; -1 is the CPU (first GPU if there is one)")
    parser.flag("--device", help="cpu, cuda:N, or auto to spread the model over all GPUs")
    parser.flag("--dtype", help="float32, float16, bfloat16, mixed (as the paper's wrapper), auto")
    parser.flag("--quantization", help="8bit or 4bit weights in the language model (neither)")
    parser.flag("--beam", "--num-beams", dest="beam", type=int, help="beams (1: greedy)")
    parser.flag("--sample", action="store_true", help="nucleus sampling, top-p 0.9")
    parser.flag("--max-new-tokens", type=int, help="length of an answer (the protocol's)")
    parser.flag(
        "--batch-size", type=_auto_or_number, help="prompts generated together, or auto (8)"
    )
    parser.flag(
        "--no-prefix-reuse",
        dest="prefix_reuse",
        action="store_false",
        help="run every prompt whole, also those about the same picture",
    )
    parser.flag("--num-workers", type=int, help="processes that read pictures ahead (4 for a GPU)")
    parser.flag("--limit", type=int, help="first N questions of each file, or pictures, only")
    parser.flag("--seed", type=int, help="of sampling, chosen pictures, built questions (42)")
    parser.flag("--output-dir", type=Path, help="where run folders are made (runs)")
    parser.flag("--preset", help="EAH preset: paper, released-code, scale-free (the config's)")
    parser.flag("--LAYER_NUM", "--layers", dest="layers", type=int, nargs="+", help="EAH layers")
    parser.flag(
        "--HEAD_NUM", "--head", dest="head", type=_auto_or_number, help="EAH head: auto or an index"
    )
    parser.flag(
        "--THRES",
        "--sink-threshold",
        dest="sink_threshold",
        type=float,
        help="EAH: mean attention above which an image token is a sink (0.002 in the paper)",
    )
    parser.flag(
        "--min-density", type=float, help="EAH: least share of sinks in the densest head, gamma (0)"
    )
    parser.flag(
        "--receivers",
        type=int,
        help="EAH: only so many heads get the map, fewest sinks first (all)",
    )
    opera = "OPERA, on top of EAH unless --method says otherwise"
    parser.flag("--scale_factor", type=float, help=f"{opera}: factor on attention (50)")
    parser.flag("--threshold", type=_steps, help=f"{opera}: steps before a rollback (15)")
    parser.flag("--num_attn_candidates", type=int, help=f"{opera}: tokens looked at (5)")
    parser.flag("--penalty_weights", type=float, help=f"{opera}: weight of the penalty (1)")


def _steps(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of steps, which OPERA's threshold is; EAH's own is --THRES"
        )
    return int(text)


def _auto_or_number(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number")
    return int(text)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise EvaluationError(f"--options {text!r}: settings are written KEY=VALUE")
    return key, yaml.safe_load(value)


def _device_of(gpu_id: int) -> str:
    if gpu_id < -1:
        raise EvaluationError(f"--gpu-id {gpu_id}: a GPU is a number from 0, and -1 is the CPU")
    return "cpu" if gpu_id == -1 else f"cuda:{gpu_id}"
