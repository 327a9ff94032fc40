"""AMBER's `data/`: captions with annotations, and questions in its order and numbering.

What scenes know: existence, the attributes state (colours) and number, and relations (left of).
Its layout: https://github.com/junyangwang0410/AMBER, commit 534babf.
"""

from __future__ import annotations

import random
from typing import Any, Final

from scripts.scenes.layouts.described import (
    Files,
    Picture,
    Scenes,
    array,
    number_questions,
    other_color,
)
from scripts.scenes.scene import CATEGORIES
from scripts.scenes.text import article

HALLUCINATIONS: Final = 3  # absent objects that a picture's annotation has
SIMILAR: Final = {"person": ["people"], "bicycle": ["bike"]}
# Nouns that stand for two things, as a traffic light's; AMBER passes over the same two.
SAFE: Final = ("light", "sign")
Asked = list[tuple[str, str, str]]
"""Type, question and truth of each."""


def amber(scenes: Scenes, rng: random.Random) -> Files:
    """Write the query files, annotations, word lists and pictures."""
    images = {f"AMBER_{n}.jpg": picture for n, picture in enumerate(scenes.pictures, start=1)}
    generative = [
        {"id": number, "image": image, "query": "Describe this image."}
        for number, image in enumerate(images, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(images.values(), start=1):
        annotations.append({"id": number, "type": "generative", **_annotation(picture)})
    discriminative: list[dict[str, Any]] = []
    for ask in (_attributes, _existence, _relations):  # of all pictures in turn, as in AMBER
        for image, picture in images.items():
            for kind, query, truth in ask(picture, rng):
                number = len(annotations) + 1
                discriminative.append({"id": number, "image": image, "query": query})
                annotations.append({"id": number, "type": kind, "truth": truth})
    words = [_noun(category.name) for category in CATEGORIES]
    return {
        "query_generative.json": array(generative),
        "query_discriminative.json": array(discriminative),
        "query_all.json": array(generative + discriminative),
        "annotations.json": array(annotations),
        "relation.json": array({word: SIMILAR.get(word, []) for word in words}),
        "safe_words.txt": "\n".join(SAFE),
        **{f"image/{name}": picture.path for name, picture in images.items()},
    }


def _annotation(picture: Picture) -> dict[str, list[str]]:
    truth, hallu = (
        [noun for name in names if (noun := _noun(name)) not in SAFE]
        for names in (picture.names, picture.absent)
    )
    return {"truth": truth, "hallu": hallu[:HALLUCINATIONS]}


def _attributes(picture: Picture, rng: random.Random) -> Asked:
    right, wrong = number_questions(picture, rng)
    asked = [("discriminative-attribute-number", right, "yes"),
             ("discriminative-attribute-number", wrong, "no")]  # fmt: skip
    for placed in picture.colored:
        for color, truth in ((placed.color, "yes"), (other_color(placed.color, rng), "no")):
            query = f"Is the {placed.name} {color} in this image?"
            asked.append(("discriminative-attribute-state", query, truth))
    return asked


def _existence(picture: Picture, _: random.Random) -> Asked:
    return [
        ("discriminative-hallucination", f"Is there {article(name)} {name} in this image?", "no")
        for name in picture.absent[:HALLUCINATIONS]
    ]


def _relations(picture: Picture, rng: random.Random) -> Asked:
    if not picture.in_a_row:
        return []
    left, right = rng.choice(picture.in_a_row)
    return [
        ("discriminative-relation", f"Is the {left} to the left of the {right}?", "yes"),
        ("relation", f"Is the {right} to the left of the {left}?", "no"),
    ]


def _noun(name: str) -> str:
    """Return the last word: AMBER's are single."""
    return name.split()[-1]
