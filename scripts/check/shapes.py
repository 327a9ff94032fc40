"""Prove that a model's original files fill every parameter, at its true size and without weights.

    python scripts/check/shapes.py minigpt4

Builds the model without memory, works out which original tensor each parameter is made from, and
gives all of them to the plan that loading follows: it must be complete and one-to-one.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.command import finish
from eval.output.table import render
from eval.run.flag_parser import FlagParser
from models import ModelError, available, model_settings, wrapper_of
from models.checkpoints.convert import model_shapes
from models.checkpoints.layouts import LAYOUTS
from models.checkpoints.plan import Destination, Shape, originals, plan_tensors, source_shape
from models.sources import Checkpoint, Source

# Of the checkpoints that the papers used. LLaMA-7B: 4096 wide, 32 layers, 32 heads.
LLAMA: Final = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
CLIP_L: Final = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
TRUE_CONFIGS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "llava-1.5": {
        "llm": {**LLAMA, "vocab_size": 32000, "max_position_embeddings": 4096},
        "vision": {"model_type": "clip", "vision_config": {**CLIP_L, "image_size": 336}},
    },
    "shikra": {
        "llm": {**LLAMA, "vocab_size": 32003},
        "vision": {"model_type": "clip", "vision_config": {**CLIP_L, "image_size": 224}},
    },
    "instructblip": {"llm": {**LLAMA, "vocab_size": 32000}, "vision": {}, "qformer": {}},
    "minigpt4": {
        "llm": {**LLAMA, "vocab_size": 32001},
        "vision": {},
        "qformer": {},
        "projector": {},
    },
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """An original tensor and what it becomes."""

    part: str
    source: str
    shape: Shape
    destination: Destination


def mapping(model: str) -> list[Mapped]:
    """Return every original tensor of a model, in the order of the model's parameters.

    Raises:
        ModelError: If a parameter has no original, or the loader's plan differs.
    """
    wrapper = wrapper_of(model_settings(model))
    expected = model_shapes(wrapper.model_class, true_config(model))
    layout = LAYOUTS[wrapper.family.name]
    found = [
        Mapped(
            part, source, source_shape(expected[target], rule), Destination(target, rule.qkv_slot)
        )
        for target in expected
        for part, source, rule in originals(target, layout)
    ]
    shapes: dict[str, dict[str, Shape]] = {part: {} for part in layout}
    for item in found:
        shapes[item.part][item.source] = item.shape
    plan = plan_tensors(expected, layout, shapes, {part: "original" for part in layout})
    planned = Counter(destination for part in plan.values() for destination in part.values())
    for item in found:
        if plan[item.part].get(item.source) != item.destination or planned[item.destination] != 1:
            raise ModelError(
                f"{item.part}: {item.source} does not lead to {item.destination} alone"
            )
    return found


def true_config(model: str) -> Any:
    """Return the transformers config of a model at its true size, as its original files have it."""
    wrapper = wrapper_of(model_settings(model))
    configs = TRUE_CONFIGS[wrapper.family.name]
    # A checkpoint of which only the configs are there.
    parts = {part: Source(part, None, config, "") for part, config in configs.items()}
    return wrapper.config(Checkpoint(wrapper.family, parts))


def patterns(found: Sequence[Mapped]) -> list[list[str]]:
    """Return (part, original, becomes, shape, count) per pattern of names."""
    rows: dict[tuple[str, ...], int] = {}
    for item in found:
        target = _pattern(item.destination.target)
        if item.destination.qkv_slot is not None:
            target += f" (rows, third {item.destination.qkv_slot})"
        key = (item.part, _pattern(item.source), target, "x".join(map(str, item.shape)))
        rows[key] = rows.get(key, 0) + 1
    return [[*key, str(count)] for key, count in rows.items()]


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".{i}.", name)


def report(model: str) -> None:
    """Print the patterns and what was proved."""
    found = mapping(model)
    print(render(["part", "original", "becomes", "shape", "count"], patterns(found)))
    numbers = sum(math.prod(item.shape) for item in found)
    print(
        f"\n{model}: {len(found)} original tensors, {numbers / 1e9:.3f} billion numbers; every "
        "parameter is filled, by one tensor each"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    known = [name for name in available() if name in TRUE_CONFIGS]
    flags.add_argument("model", choices=known, help=f"one of {', '.join(known)}")
    name = Path(flags.prog).stem
    return finish(name, lambda: report(flags.parse(arguments)["model"]), ModelError)


if __name__ == "__main__":
    sys.exit(main())
