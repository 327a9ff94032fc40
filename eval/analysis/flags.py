"""The flags of `eval/sinks.py`, and the settings of each model that a command line names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.analysis.counting import counting_of
from eval.analysis.settings import NUM_IMAGES, SinkSettings
from eval.errors import EvaluationError
from eval.run.flag_parser import FlagParser
from eval.run.flags import add_eah_flags, add_model_flags, add_running_flags, resolve


def flags(documentation: str) -> FlagParser:
    """Return the flags of the command."""
    parser = FlagParser(documentation)
    flag = parser.flag
    flag("--captions", action="store_true", help="describe the pictures; CHAIR's errors (neither)")
    flag(
        "--pope-type",
        nargs="+",
        metavar="TYPE",
        help="ask POPE's questions: random, popular, adversarial, or all (neither)",
    )
    flag("--num-images", type=int, help=f"pictures, drawn by --seed ({NUM_IMAGES})")
    flag("--image-ids", type=Path, metavar="FILE", help="ids, or captions, of pictures instead")
    flag("--question", metavar="TEXT", help="what is asked about each (CHAIR's question)")
    flag(
        "--gammas", type=float, nargs="+", metavar="X", help="densities of a dense head (0.15 0.2)"
    )
    flag(
        "--ablate",
        nargs="+",
        metavar="KEY=V1,V2",
        help="answer with these settings of EAH, one at a time: layers=0,1,2 receivers=8,16",
    )
    flag("--choose-on", type=int, help="choose the best on N other pictures, and report that one")
    flag("--pictures", nargs="+", metavar="NAME", help="pictures to look at closely (the first)")
    flag("--coco_path", type=Path, help="--captions: annotations (default: next to the pictures)")
    flag("--ground-truth", type=Path, help="--captions: a file of objects instead")
    flag("--analyzer", help="--captions: how they are read, auto, nltk or lexicon")
    flag("--pope-path", type=Path, help="folder of coco_pope_TYPE.json, or one file")
    flag("--build-from", type=Path, help="instances_*.json to build POPE's questions from")
    flag("--build-images", type=int, help="pictures to ask about when building (500)")
    add_model_flags(parser, action="append", metavar="NAME")
    add_eah_flags(
        parser,
        nargs="+",
        metavar="X",
        help="EAH: mean attention above which an image token is a sink (0.002 in the paper); "
        "sinks are counted with further ones, too",
    )
    text = "leave out pictures that can't be read (an error)"
    flag("--skip-unreadable", action="store_true", group="data", help=text)
    add_running_flags(parser)
    flag("--report", type=Path, metavar="FILE", group="output", help="write the page here, too")
    return parser


def settings_of(given: Mapping[str, Any]) -> list[SinkSettings]:
    """Return the settings of each model that a command line names.

    Raises:
        EvaluationError: If a setting is unknown or not allowed, a model is named twice, or some
            models have a checkpoint and others none.
        ModelError: If there is no such model.
    """
    common = dict(given)
    models, checkpoints = common.pop("model", [None]), common.pop("checkpoint", [])
    if checkpoints and len(checkpoints) != len(models):
        raise EvaluationError(
            f"{len(models)} models and {len(checkpoints)} checkpoints; give --checkpoint once for "
            "each --model, in the same order, or not at all"
        )
    pairs = list(zip(models, checkpoints or [None] * len(models), strict=True))
    if len(set(pairs)) < len(pairs):
        raise EvaluationError("--model names the same model twice; name each once")
    threshold, *more = common.pop("sink_threshold", [None])
    found = []
    for model, checkpoint in pairs:
        own = {
            "model": model,
            "checkpoint": checkpoint,
            "sink_threshold": threshold,
            "thresholds": tuple(more),
        }
        own = {name: value for name, value in own.items() if value not in (None, ())}
        settings = resolve(SinkSettings(), {**common, **own})
        counting_of(settings.eah(), settings.thresholds)  # raises now, not when torch is there
        found.append(settings)
    return found


def model_names(every: Sequence[SinkSettings]) -> list[str]:
    """Return what tables call the models: by name, or by checkpoint where several have one name."""
    names: list[str] = []
    for settings in every:
        others = [one.model for one in every if one is not settings]
        is_named = settings.checkpoint is not None and (
            settings.model == "hf" or settings.model in others
        )
        name = Path(settings.checkpoint or "").name if is_named else settings.model
        twin = f"{name} ({names.count(name) + 1})" if name in names else name
        names.append(twin)
    return names
