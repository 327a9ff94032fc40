"""Read COCO's annotation files: which objects and captions a picture has."""

from __future__ import annotations

import re
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
    "annotations_trainval2014.zip of cocodataset.org, which scripts/data/download.sh fetches"
)


_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Instances:
    """Pictures of an instances file by image id.

    Attributes:
        file_names: File name of the picture.
        objects: Names of the categories in the picture; may be empty.
    """

    file_names: dict[ImageId, str]
    objects: dict[ImageId, set[str]]


def annotation_files(folder: Path, splits: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return the annotation files of a folder by name.

    Raises:
        EvaluationError: Naming the files that are missing.
    """
    if not folder.is_dir():
        raise EvaluationError(f"--coco_path {folder} is not a folder; pass the folder of {SOURCE}")
    names = [f"{kind}_{split}.json" for kind in KINDS for split in splits]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{folder} lacks {', '.join(missing)} (needed: {', '.join(names)}); "
            f"they are in {SOURCE}; for captions of one split, pass --splits val2014 to read only "
            "its files"
        )
    return {name: folder / name for name in names}


def read_instances(path: Path) -> Instances:
    """Read an instances file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's.
    """
    with _open_annotations(path) as content:
        names: dict[Any, str] = {}
        for where, one in _entries(content, "categories"):
            _add(names, _number(one, "id", where), _text(one, "name", where), where)
        file_names: dict[ImageId, str] = {}
        for where, one in _entries(content, "images"):
            _add(file_names, _image_id(one, "id", where), _text(one, "file_name", where), where)
        objects: dict[ImageId, set[str]] = {image_id: set() for image_id in file_names}
        for where, one in _entries(content, "annotations"):
            image_id, number = (
                _image_id(one, "image_id", where),
                _number(one, "category_id", where),
            )
            if image_id not in objects:
                raise ValueError(f"{where} names image {image_id}, which is not in its images")
            if number not in names:
                raise ValueError(f"{where} names category {number}, which is not in its categories")
            objects[image_id].add(names[number])
    return Instances(file_names, objects)


def read_captions(path: Path) -> list[tuple[ImageId, str]]:
    """Return image id and text of every caption of a captions file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's.
    """
    with _open_annotations(path) as content:
        return [
            (_image_id(one, "image_id", where), _text(one, "caption", where))
            for where, one in _entries(content, "annotations")
        ]


def _load(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not complete JSON ({json_fault(error)}); it may be cut off: "
            f"get it again from {SOURCE}"
        ) from error


def _entries(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list of the file, each with its position in words."""
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"it has no list of {name}")
    for number, one in enumerate(entries, start=1):
        where = f"entry {number} of its {name}"
        if not isinstance(one, dict):
            raise ValueError(f"{where} is {one!r:.60}, not an object")
        yield where, one


def _value(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise ValueError(f"{where} has no {key!r}")
    return entry[key]


def _image_id(entry: dict[str, Any], key: str, where: str) -> ImageId:
    value = _value(entry, key, where)
    image_id = image_id_of(value)
    if image_id is None:
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is not an image id")
    return image_id


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = _value(entry, key, where)
    if not isinstance(value, str):
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is not text")
    return value


def _number(entry: dict[str, Any], key: str, where: str) -> int | float | str:
    """Return a category's id; some tools write the same number as text in one list only."""
    value = _value(entry, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is not a number")
    is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
    return int(value) if is_number else value


def _add(found: dict[Any, str], key: Any, value: str, where: str) -> None:
    """Add the value of an id; a duplicate id is an error, as it is unclear which one counts."""
    if key in found:
        raise ValueError(f"{where} repeats the id {key!r:.60}")
    found[key] = value


@contextmanager
def _open_annotations(path: Path) -> Iterator[Any]:
    """Yield the content of a file; errors in its structure become one sentence."""
    content = _load(path)
    try:
        yield content
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not a COCO annotation file of this kind ({error}); pass one from {SOURCE}"
        ) from error
