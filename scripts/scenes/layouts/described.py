"""Scenes that `make.py` wrote, with all that is known of them, and what can be asked about one."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import read_json
from scripts.scenes.make import FILES, INFO
from scripts.scenes.scene import CATEGORIES, RARE, SIDE, THEMES, VIVID, Placed
from scripts.scenes.text import number_of

APART: Final = SIDE / 5  # pixels between the middles of what is left and right of each other


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene's picture file and what is in it, largest object first."""

    id: int
    path: Path
    theme: str
    objects: tuple[Placed, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many objects there are of each category."""
        return Counter(placed.name for placed in self.objects)

    @property
    def names(self) -> list[str]:
        """Distinct categories, in the order of the objects."""
        return list(self.counts)

    @property
    def single(self) -> list[Placed]:
        """The objects that are the only one of their category."""
        return [placed for placed in self.objects if self.counts[placed.name] == 1]

    @property
    def absent(self) -> list[str]:
        """Categories that are not there, those first that the theme makes likely."""
        names = [c.name for c in CATEGORIES if c.name not in self.counts]
        return sorted(names, key=lambda name: -THEMES[self.theme].get(name, RARE))

    @property
    def colored(self) -> list[Placed]:
        """Single objects whose colour is known."""
        return [placed for placed in self.single if placed.color is not None]

    @property
    def in_a_row(self) -> list[tuple[str, str]]:
        """Pairs of single objects, the first clearly to the left of the second."""
        pairs = permutations(self.single, 2)
        return [(a.name, b.name) for a, b in pairs if _middle(b) - _middle(a) > APART]


@dataclass(frozen=True, slots=True)
class Scenes:
    """A folder of `make.py`: its instances file, and its pictures in order."""

    instances: Path
    pictures: tuple[Picture, ...]


Files = Mapping[str, str | bytes | Path]
"""By path below a benchmark's folder: what is written, or the picture that is copied."""
Layout = Callable[[Scenes, random.Random], Files]


def other_color(color: str | None, rng: random.Random) -> str:
    """Return a colour that an object does not have."""
    return rng.choice([name for name in VIVID if name != color])


def number_questions(picture: Picture, rng: random.Random) -> tuple[str, str]:
    """Return a true and a wrong question about the number of what there is most of."""
    name, count = picture.counts.most_common(1)[0]
    wrong = rng.choice([count + 1, *([count - 1] if count > 1 else [])])
    verbs = ("Is" if number == 1 else "Are" for number in (count, wrong))
    right_text, wrong_text = (
        f"{verb} there {number_of(name, number)} in this image?"
        for verb, number in zip(verbs, (count, wrong), strict=True)
    )
    return right_text, wrong_text


def array(rows: object) -> str:
    """Return the text of a JSON file as most benchmarks indent it."""
    return json.dumps(rows, indent=4)


def read_scenes(folder: Path) -> Scenes:
    """Read what `make.py` wrote.

    Raises:
        EvaluationError: If the folder is not of this command, or of one that wrote no colours.
    """
    path = folder / "annotations" / FILES[0]
    advice = f"make scenes with: python scripts/scenes/make.py --output {folder}"
    if not path.is_file():
        raise EvaluationError(f"--scenes {folder} has no annotations/{path.name}; {advice}")
    content = read_json(path)
    if content.get("info") != INFO:
        raise EvaluationError(f"{path} is of another source; {advice} or another folder")
    try:
        scenes = Scenes(path, tuple(_pictures(folder, content)))
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} lacks what questions need ({error}), as one of an older version does; {advice}"
        ) from error
    missing = [picture.path for picture in scenes.pictures if not picture.path.is_file()]
    if missing:
        raise EvaluationError(
            f"{len(missing)} pictures are not there, {missing[0]} first; {advice}"
        )
    return scenes


def _pictures(folder: Path, content: Mapping[str, Any]) -> list[Picture]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    objects: dict[int, list[Placed]] = {image["id"]: [] for image in content["images"]}
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        placed = Placed(names[one["category_id"]], (x, y, width, height), one["area"], one["color"])
        objects[one["image_id"]].append(placed)
    return [
        Picture(
            image["id"],
            folder / "val2014" / image["file_name"],
            image["theme"],
            tuple(objects[image["id"]]),
        )
        for image in content["images"]
        if objects[image["id"]]
    ]


def _middle(placed: Placed) -> float:
    return placed.bbox[0] + placed.bbox[2] / 2
