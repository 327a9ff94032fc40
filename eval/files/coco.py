"""Read COCO's annotation files: which objects and captions a picture has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId, image_id_of
from eval.files.text import read_text
from models.json_files import json_fault, parse_json

KINDS: Final = ("instances", "captions")
SPLITS: Final = ("train2014", "val2014")
SOURCE: Final = (
    "annotations_trainval2014.zip of cocodataset.org, which scripts/download_data.sh fetches"
)


@dataclass(frozen=True, slots=True)
class Instances:
    """Pictures of an instances file by image id.

    Attributes:
        file_names: Where the picture is.
        objects: Names of the categories that are in it; there may be none.
    """

    file_names: dict[ImageId, str]
    objects: dict[ImageId, set[str]]


def annotation_files(folder: Path, splits: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return the annotation files of a folder by name.

    Raises:
        EvaluationError: Naming the files that are missing.
    """
    if not folder.is_dir():
        raise EvaluationError(f"--coco_path {folder} is not a folder; pass that of {SOURCE}")
    names = [f"{kind}_{split}.json" for kind in KINDS for split in splits]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{folder} lacks {', '.join(missing)} (needed are {', '.join(names)}); "
            f"they are in {SOURCE}; captions of one split need the files of that split only "
            "(--splits val2014)"
        )
    return {name: folder / name for name in names}


def read_instances(path: Path) -> Instances:
    """Read an instances file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's.
    """
    content = _load(path)
    with _reading(path):
        names = {_number(one["id"]): str(one["name"]) for one in content["categories"]}
        file_names = {_image_id(one["id"]): str(one["file_name"]) for one in content["images"]}
        objects: dict[ImageId, set[str]] = {image_id: set() for image_id in file_names}
        for one in content["annotations"]:
            objects[_image_id(one["image_id"])].add(names[_number(one["category_id"])])
    return Instances(file_names, objects)


def read_captions(path: Path) -> list[tuple[ImageId, str]]:
    """Return image id and text of every caption of a captions file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's.
    """
    content = _load(path)
    with _reading(path):
        return [
            (_image_id(one["image_id"]), _text(one["caption"])) for one in content["annotations"]
        ]


def _load(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not whole JSON ({json_fault(error)}); it may have been cut off, "
            f"get it again: it is in {SOURCE}"
        ) from error


def _image_id(value: Any) -> ImageId:
    image_id = image_id_of(value)
    if image_id is None:
        raise ValueError(f"{value!r} is no image id")
    return image_id


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"caption {value!r:.60} is not text")
    return value


def _number(value: Any) -> Any:
    """Return a category's id; some tools write numbers as text in one place and not in another."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a file of another shape raises into one sentence."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is not a COCO annotation file of that kind ({type(error).__name__}: {error}); "
            f"pass one as in {SOURCE}"
        ) from error
