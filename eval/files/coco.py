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
    "annotations_trainval2014.zip of cocodataset.org, which scripts/download_data.sh fetches"
)


_NUMBER: Final = re.compile(r"[0-9]{1,18}")


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
    with _reading(path) as content:
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
                raise ValueError(f"{where} is of image {image_id}, which its images lack")
            if number not in names:
                raise ValueError(f"{where} is of category {number}, which its categories lack")
            objects[image_id].add(names[number])
    return Instances(file_names, objects)


def read_captions(path: Path) -> list[tuple[ImageId, str]]:
    """Return image id and text of every caption of a captions file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's.
    """
    with _reading(path) as content:
        return [
            (_image_id(one, "image_id", where), _text(one, "caption", where))
            for where, one in _entries(content, "annotations")
        ]


def _load(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not whole JSON ({json_fault(error)}); it may have been cut off, "
            f"get it again: it is in {SOURCE}"
        ) from error


def _entries(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list of the file, each with the place where it stands."""
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
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is no image id")
    return image_id


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = _value(entry, key, where)
    if not isinstance(value, str):
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is not text")
    return value


def _number(entry: dict[str, Any], key: str, where: str) -> int | float | str:
    """Return a category's id; some tools write numbers as text in one place and not in another."""
    value = _value(entry, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{where} has {key!r} {value!r:.60}, which is no number")
    is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
    return int(value) if is_number else value


def _add(found: dict[Any, str], key: Any, value: str, where: str) -> None:
    """Add what an entry says of an id, once: of two, nobody can tell which of them counts."""
    if key in found:
        raise ValueError(f"{where} has the id {key!r:.60}, as another one before it")
    found[key] = value


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Yield the content of a file; what says that it is of another shape becomes one sentence."""
    content = _load(path)
    try:
        yield content
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not a COCO annotation file of that kind ({error}); pass one as in {SOURCE}"
        ) from error
