"""HallusionBench's rows: the same questions about a picture and an edited copy, or about none.

VD asks what only a picture shows: figure 0 is the original, figure 1 has one object more. VS asks
what is known without one: figure 0 has no picture, 1 is the original and 2 the
edited one.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from scripts.scenes.layouts.described import Files, Picture, Scenes
from scripts.scenes.scene import BY_NAME, place
from scripts.scenes.text import answer, article, question

SUBCATEGORIES: Final = {"VD": ("illusion", "figure"), "VS": ("chart", "table")}
SETS: Final = 3  # of a subcategory
KINDS: Final = ("animal", "vehicle")  # what is known of some categories without a picture
NO_PICTURE, ORIGINAL, EDITED = "0", "1", "2"  # values of visual_input


@dataclass(frozen=True, slots=True)
class Edit:
    """A picture, a copy that has one object more, and what that object is."""

    picture: Picture
    copy: Image.Image
    added: str

    def names(self, visual_input: str) -> list[str]:
        """Return the categories in the original, or in the copy."""
        return [*self.picture.names, *([self.added] if visual_input == EDITED else [])]


class Question(NamedTuple):
    """A question about a figure or none: `number` is that of its group, `details` the answer."""

    visual_input: str
    number: int
    text: str
    truth: bool
    details: str


def hallusionbench(scenes: Scenes, rng: random.Random) -> Files:
    """Write the rows, all values strings, and the figures."""
    rows: list[dict[str, str | None]] = []
    files: dict[str, str | bytes | Path] = {}
    for category, subcategories in SUBCATEGORIES.items():
        is_supplement = category == "VS"
        edits = _edits(scenes, rng, kinds=KINDS if is_supplement else ())
        for subcategory in subcategories:
            for number, edit in enumerate(islice(edits, SETS)):
                for asked in _supplement(edit) if is_supplement else _dependent(edit):
                    figure = int(asked.visual_input) - (not is_supplement)
                    name = f"{category}/{subcategory}/{number}_{figure}.png"
                    if asked.visual_input != NO_PICTURE:
                        files[name] = _figure(edit, asked.visual_input)
                    rows.append({
                        "category": category,
                        "subcategory": subcategory,
                        "visual_input": asked.visual_input,
                        "set_id": str(number),
                        "figure_id": str(figure),
                        "sample_note": edit.added,
                        "question_id": str(asked.number),
                        "question": asked.text,
                        "gt_answer_details": asked.details,
                        "gt_answer": str(int(asked.truth)),
                        "filename": f"./{name}" if name in files else None,
                    })  # fmt: skip
    return {"HallusionBench.json": json.dumps(rows), **files}


def _edits(scenes: Scenes, rng: random.Random, *, kinds: tuple[str, ...]) -> Iterator[Edit]:
    """Yield pictures with copies that have an object more, of these kinds if any are named."""
    for picture in rng.sample(scenes.pictures, len(scenes.pictures)):
        names = [n for n in picture.absent if not kinds or BY_NAME[n].supercategory in kinds]
        if not names:
            continue
        with Image.open(picture.path) as original:
            copy = original.convert("RGB")
        added, placed = rng.choice(names), list(picture.objects)
        place(copy, BY_NAME[added], placed, rng)
        if len(placed) > len(picture.objects):  # there was room
            yield Edit(picture, copy, added)


def _dependent(edit: Edit) -> Iterator[Question]:
    """Ask about what was added, what is there and what is not, of original and copy."""
    never = next(name for name in edit.picture.absent if name != edit.added)
    for visual_input in (ORIGINAL, EDITED):
        names = edit.names(visual_input)
        for number, name in enumerate((edit.added, edit.picture.names[0], never)):
            is_there = name in names
            details = answer(name, present=is_there)
            yield Question(visual_input, number, question(name), is_there, details)


def _supplement(edit: Edit) -> Iterator[Question]:
    """Ask what kind of thing the added object is, and whether the figures have such things."""
    thing = f"{article(edit.added)} {edit.added}"
    for number, kind in enumerate(KINDS):
        a_kind = f"{article(kind)} {kind}"
        truth = BY_NAME[edit.added].supercategory == kind
        details = f"{thing} is {'' if truth else 'not '}{a_kind}.".capitalize()
        yield Question(NO_PICTURE, number, f"Is {thing} {a_kind}?", truth, details)
    for visual_input in (ORIGINAL, EDITED):
        kinds = {BY_NAME[name].supercategory for name in edit.names(visual_input)}
        for number, kind in enumerate(KINDS):
            details = answer(kind, present=kind in kinds)
            yield Question(visual_input, number, question(kind), kind in kinds, details)


def _figure(edit: Edit, visual_input: str) -> bytes:
    png = io.BytesIO()
    if visual_input == EDITED:
        edit.copy.save(png, "PNG")
    else:
        with Image.open(edit.picture.path) as original:
            original.convert("RGB").save(png, "PNG")
    return png.getvalue()
