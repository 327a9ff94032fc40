"""MME's release: a folder per category, with pictures and a text file of two questions for each.

Scenes know its hallucination subset: existence, count, position and color.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from eval.tasks.mme import REQUEST
from scripts.scenes.layouts.described import Files, Picture, Scenes, number_questions, other_color
from scripts.scenes.text import article

FOLDER: Final = "MME_Benchmark_release_version"
Pair = tuple[str, str]
"""A question whose answer is Yes, and one whose answer is No."""


def mme(scenes: Scenes, rng: random.Random) -> Files:
    """Write the categories; a picture is in those in which something can be asked about it."""
    files: dict[str, str | bytes | Path] = {}
    for category, ask in CATEGORIES.items():
        for picture in scenes.pictures:
            pair = ask(picture, rng)
            if pair is None:
                continue
            lines = [
                f"{text}{REQUEST}\t{label}\n"
                for text, label in zip(pair, ("Yes", "No"), strict=True)
            ]
            path = f"{FOLDER}/{category}/{picture.id:012d}"
            files[f"{path}.txt"], files[f"{path}.jpg"] = "".join(lines), picture.path
    return files


def _existence(picture: Picture, rng: random.Random) -> Pair:
    yes, no = (
        f"Is there {article(name)} {name} in this image?"
        for name in (rng.choice(picture.names), picture.absent[0])
    )
    return yes, no


def _position(picture: Picture, rng: random.Random) -> Pair | None:
    if not picture.in_a_row:
        return None
    left, right = rng.choice(picture.in_a_row)
    yes, no = (
        f"Is the {left} on the {side} of the {right} in the image?" for side in ("left", "right")
    )
    return yes, no


def _color(picture: Picture, rng: random.Random) -> Pair | None:
    if not picture.colored:
        return None
    placed = rng.choice(picture.colored)
    yes, no = (
        f"Is there {article(color)} {color} {placed.name} in the image?"
        for color in (str(placed.color), other_color(placed.color, rng))
    )
    return yes, no


CATEGORIES: Final[dict[str, Callable[[Picture, random.Random], Pair | None]]] = {
    "existence": _existence,
    "count": number_questions,
    "position": _position,
    "color": _color,
}
