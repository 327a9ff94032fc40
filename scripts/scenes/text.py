"""Sentences about scenes: what tiny-llava is asked, answers, and describes."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from scripts.scenes.scene import Placed, Scene

QUESTION_DESCRIBE: Final = "Please describe this image in detail."
PLURALS: Final = {"person": "people", "sports ball": "sports balls"}
COUNTS: Final = {1: "one", 2: "two", 3: "three", 4: "four"}


def article(name: str) -> str:
    """Return "a" or "an" as the name wants it."""
    return "an" if name[0] in "aeiou" else "a"


def plural(name: str) -> str:
    """Return the plural of a category."""
    return PLURALS.get(name, f"{name}s")


def number_of(name: str, count: int) -> str:
    """Return "one cup", "two cups" and so on; scenes have at most three of a category."""
    return f"{COUNTS[count]} {name if count == 1 else plural(name)}"


def question(name: str) -> str:
    """Return POPE's question about a category."""
    return f"Is there {article(name)} {name} in the image?"


def answer(name: str, *, present: bool) -> str:
    """Return the sentence that tiny-llava answers with."""
    if present:
        return f"Yes, there is {article(name)} {name} in the image."
    return f"No, there is no {name} in the image."


def describe(scene: Scene) -> str:
    """Return the long description: everything in the scene, then where the largest things are."""
    sentences = [f"The image features {_listing(scene)}."]
    seen: set[str] = set()
    for placed in scene.objects:
        if placed.name in seen or len(seen) == 2:
            continue
        seen.add(placed.name)
        sentences.append(f"There is {article(placed.name)} {placed.name} {_where(placed)}.")
    return " ".join(sentences)


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Return five short captions, as COCO has them; each names some or all of the objects."""
    names = scene.names
    some = rng.sample(names, k=rng.randint(1, len(names)))
    first = names[0]
    return [
        f"A picture of {_listing(scene)}.",
        f"{_listing(scene).capitalize()} in a {scene.theme} scene.",
        f"There is {article(first)} {first} {_where(scene.objects[0])}.",
        f"A drawing that shows {_join([f'{article(n)} {n}' for n in some])}.",
        f"A {scene.theme} scene with {article(first)} {first}.",
    ]


def _listing(scene: Scene) -> str:
    counts = Counter(placed.name for placed in scene.objects)
    return _join([_count_phrase(name, counts[name]) for name in scene.names])


def _count_phrase(name: str, count: int) -> str:
    if count == 1:
        return f"{article(name)} {name}"
    return number_of(name, count)


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _where(placed: Placed) -> str:
    middle = placed.bbox[0] + placed.bbox[2] / 2
    side = "left" if middle < 75 else "right" if middle > 149 else None
    return f"on the {side} side of the image" if side else "in the middle of the image"
