"""Which pictures are captioned: those of a list, in its order, or a seeded sample of a folder.

The papers took the first 500 of a shuffled `os.listdir`, which is another choice on every file
system. Here a choice depends on the names and the seed only, and any published captions file is a
list of image ids.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import read_json_lines, read_lines

SUFFIXES: Final = (".jpg", ".jpeg", ".png")
NUM_IMAGES: Final = 500


def pictures_in(folder: Path) -> dict[int, str]:
    """Return file names by image id, in the order of the names.

    A picture is a .jpg, .jpeg or .png whose name ends in its id, as COCO_val2014_000000226988.jpg.

    Raises:
        EvaluationError: If there is none, or two have the same id.
    """
    with os.scandir(folder) as entries:
        # A leading dot: macOS leaves "._COCO_val2014_000000226988.jpg" on foreign disks.
        names = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    found: dict[int, str] = {}
    for name in names:
        image_id = _id_of_name(name)
        if image_id is None:
            continue
        if image_id in found:
            raise EvaluationError(
                f"{found[image_id]} and {name} in {folder} have the same image id {image_id}; "
                "remove one of them"
            )
        found[image_id] = name
    if not found:
        raise EvaluationError(
            f"no pictures in {folder}: they are {', '.join(SUFFIXES)} files whose name ends in the "
            "image id, such as COCO_val2014_000000226988.jpg; pass their folder as --data-path"
        )
    return found


def sample_ids(pictures: Mapping[int, str], count: int, *, seed: int) -> list[int]:
    """Return a random choice of image ids, or all of them, shuffled, where there are fewer."""
    return random.Random(seed).sample(list(pictures), min(count, len(pictures)))


def read_ids(path: Path) -> list[int]:
    """Return the image ids of a file, in its order.

    The file holds one id or picture's name a line, or a JSON object with `image_id` a line. The
    latter may repeat an id (several methods captioned it), which counts once.

    Raises:
        EvaluationError: If there is none, a line has none, or a plain list repeats one.
    """
    lines = read_lines(path)
    if not lines:
        raise EvaluationError(f"{path} holds no image ids; one id a line is needed")
    if lines[0][1].startswith("{"):
        rows = read_json_lines(path)
        return list(dict.fromkeys(_id_of_row(row, f"{path}, line {n}") for n, row in rows))
    found: dict[int, int] = {}
    for number, line in lines:
        image_id = image_id_of(line)
        if image_id is None:
            raise EvaluationError(
                f"{path}, line {number}: {line[:60]!r} is no image id; a line is an id (226988), a "
                'picture\'s name (COCO_val2014_000000226988.jpg) or {"image_id": 226988, ...}'
            )
        if image_id in found:
            raise EvaluationError(
                f"{path}, line {number}: image id {image_id} stands in line {found[image_id]} "
                "already; name each picture once"
            )
        found[image_id] = number
    return list(found)


def check_ids(ids: Sequence[int], pictures: Mapping[int, str], *, path: Path, folder: Path) -> None:
    """Check that all image ids of a file have a picture.

    Raises:
        EvaluationError: Naming the first that has none, and how many have none.
    """
    missing = [image_id for image_id in ids if image_id not in pictures]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} image ids of {path} have no picture in {folder}, "
            f"{missing[0]} is the first; pass the right --data-path (scripts/download_data.sh "
            "fetches COCO's)"
        )


def ids_hash(ids: Sequence[int]) -> str:
    """Return the SHA-256 of the image ids in order, joined by commas."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def image_id_of(value: Any) -> int | None:
    """Return the image id that a value is, or that it ends in where it is a picture's name.

    None where it is neither: a negative number, a fraction, another text.
    """
    if isinstance(value, str):
        return int(value) if re.fullmatch("[0-9]+", value) else _id_of_name(value)
    return value if type(value) is int and value >= 0 else None


def _id_of_row(row: Mapping[str, Any], where: str) -> int:
    # An arm's answers.jsonl has a question's id, which is the picture's in a captioning run.
    image_id = image_id_of(row["id"] if {"id", "answer"} <= row.keys() else row.get("image_id"))
    if image_id is None:
        raise EvaluationError(
            f"{where}: 'image_id' is {row.get('image_id')!r}, which is no image id; the keys there "
            f"are {', '.join(sorted(row))}"
        )
    return image_id


def _id_of_name(name: str) -> int | None:
    path = Path(name)
    digits = re.search(r"[0-9]+\Z", path.stem)
    return int(digits[0]) if digits and path.suffix.lower() in SUFFIXES else None
