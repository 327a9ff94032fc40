"""Twelve scenes with POPE's questions about them, as an evaluation reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from eval.files.answers import Item
from eval.tasks.pope.questions import (
    annotated_images,
    build_questions,
    dump_questions,
)
from scripts.scenes.make import write_scenes

COUNT = 12
SEED = 11


@dataclass(frozen=True, slots=True)
class Scenes:
    """A folder of scenes.

    Attributes:
        root: Has `val2014/` and `annotations/`, in COCO's layout.
        pope: Folder of the three question files, under their published names.
        questions: Questions by POPE type.
    """

    root: Path
    pope: Path
    questions: dict[str, list[Item]]

    @property
    def images(self) -> Path:
        """Folder of the pictures."""
        return self.root / "val2014"

    def pictures(self) -> list[Image.Image]:
        """Return the pictures, by file name."""
        return [Image.open(path).convert("RGB") for path in sorted(self.images.glob("*.jpg"))]


def write(root: Path, *, count: int = COUNT) -> Scenes:
    """Write scenes and their questions."""
    write_scenes(root, count=count, seed=SEED)
    annotated = annotated_images(root / "annotations" / "instances_val2014.json")
    questions = build_questions(annotated, count=count, seed=SEED)
    pope = root / "pope"
    pope.mkdir()
    for pope_type, items in questions.items():
        (pope / f"coco_pope_{pope_type}.json").write_text(dump_questions(items), encoding="utf-8")
    return Scenes(root, pope, questions)
