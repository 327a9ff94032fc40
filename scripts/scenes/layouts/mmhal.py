"""MMHal-Bench's template: open questions of eight types in turn, with answers for the judge."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from scripts.scenes.layouts.described import Files, Picture, Scenes, array
from scripts.scenes.text import article, number_of, plural

ROUNDS: Final = 12  # of eight items, as there; the scorer of its authors takes no other number
SOURCE: Final = "https://example.org/scenes"  # nothing is fetched: the picture's name counts


class Asked(NamedTuple):
    """A question, its topic (a category) and the answer."""

    topic: str
    question: str
    answer: str


Ask = Callable[[Picture, random.Random], Asked | None]


def mmhal(scenes: Scenes, rng: random.Random) -> Files:
    """Write the template and its pictures, as many whole rounds of the types as can be asked.

    A picture is asked the same once only; one of which a type can't be asked is passed over.
    """
    rounds = zip(*(_questions_of_type(scenes, ask, rng) for ask in TYPES.values()), strict=False)
    items: list[dict[str, Any]] = []
    files: dict[str, str | bytes | Path] = {}
    for one_round in islice(rounds, ROUNDS):
        for kind, (picture, asked) in zip(TYPES, one_round, strict=True):
            name = f"{picture.id:012d}.jpg"
            files[f"images/{name}"] = picture.path
            items.append({
                "question_type": kind,
                "question_topic": asked.topic,
                "image_id": f"{picture.id:012d}",
                "image_src": f"{SOURCE}/{name}",
                "image_content": picture.names,
                "question": asked.question,
                "gt_answer": asked.answer,
                "model_answer": "",
            })  # fmt: skip
    return {"response_template.json": array(items), **files}


def _questions_of_type(scenes: Scenes, ask: Ask, rng: random.Random) -> list[tuple[Picture, Asked]]:
    """Return a question of a type about each picture that allows one, in a random order."""
    pictures = rng.sample(scenes.pictures, len(scenes.pictures))
    return [(picture, asked) for picture in pictures if (asked := ask(picture, rng))]


def _attribute(picture: Picture, rng: random.Random) -> Asked | None:
    if not picture.colored:
        return None
    placed = rng.choice(picture.colored)
    text = f"What color is the {placed.name} in the image?"
    return Asked(placed.name, text, f"The {placed.name} is {placed.color}.")


def _adversarial(picture: Picture, _: random.Random) -> Asked:
    name = picture.absent[0]
    text = f"How many colors does the {name} in the image have?"
    return Asked(name, text, f"There is no {name} in the image.")


def _comparison(picture: Picture, _: random.Random) -> Asked | None:
    if len(picture.single) < 2:
        return None
    large, small = picture.single[0], picture.single[-1]
    if large.area < 1.5 * small.area:
        return None
    text = f"Which takes more room in the image, the {small.name} or the {large.name}?"
    return Asked(large.name, text, f"The {large.name} takes more room.")


def _counting(picture: Picture, _: random.Random) -> Asked:
    name, count = picture.counts.most_common(1)[0]
    verb = "is" if count == 1 else "are"
    text = f"How many {plural(name)} are there in the image?"
    return Asked(name, text, f"There {verb} {number_of(name, count)} in the image.")


def _relation(picture: Picture, rng: random.Random) -> Asked | None:
    if not picture.in_a_row:
        return None
    left, right = rng.choice(picture.in_a_row)
    text = f"Is the {left} to the left or to the right of the {right}?"
    return Asked(left, text, f"The {left} is to the left of the {right}.")


def _environment(picture: Picture, _: random.Random) -> Asked:
    text = "What kind of scene does the image show?"
    return Asked(picture.names[0], text, f"The image shows a {picture.theme} scene.")


def _holistic(picture: Picture, _: random.Random) -> Asked:
    return Asked(
        picture.names[0], "Describe the image.", f"The image shows {_object_list(picture)}."
    )


def _other(picture: Picture, _: random.Random) -> Asked:
    text = "Is the image a photograph or a drawing?"
    return Asked(picture.names[0], text, "It is a drawing.")


def _object_list(picture: Picture) -> str:
    return ", ".join(f"{article(name)} {name}" if count == 1 else number_of(name, count)
                     for name, count in picture.counts.items())  # fmt: skip


TYPES: Final[dict[str, Ask]] = {
    "attribute": _attribute,
    "adversarial": _adversarial,
    "comparison": _comparison,
    "counting": _counting,
    "relation": _relation,
    "environment": _environment,
    "holistic": _holistic,
    "other": _other,
}
