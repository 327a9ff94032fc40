"""Which pictures are captioned: those of a list, in its order, or a seeded sample of a folder.

The papers took the first 500 of a shuffled `os.listdir`, which is another choice on every file
system. Here a choice depends on the names and the seed only, and any published captions file is a
list of image ids.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from eval.errors import EvaluationError
from eval.files.image_ids import PICTURE_SUFFIXES, ImageId, image_id_of

# Pictures that PIL does not read.
OTHER_SUFFIXES: Final = (".heic", ".heif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw")
NUM_IMAGES: Final = 500


def pictures_in(folder: Path) -> dict[ImageId, str]:
    """Return the names of the pictures in a folder and below by image id, in their own order.

    The id is a number where `image_id_of` finds one in the name, else the name below the folder.
    Pictures in formats that are not read are left out, with a note.

    Raises:
        EvaluationError: If there is none, or two have the same id.
    """
    names = sorted(_files(folder, "", {os.path.realpath(folder)}))
    found: dict[ImageId, str] = {}
    for name in names:
        image_id = image_id_of(name)
        if PurePath(name).suffix.lower() not in PICTURE_SUFFIXES or image_id is None:
            continue
        if image_id in found:
            raise EvaluationError(
                f"{found[image_id]} and {name} in {folder} have the same image id {image_id}; "
                "remove one of them, or pass the folder of one as --data-path"
            )
        found[image_id] = name
    others = [name for name in names if PurePath(name).suffix.lower() in OTHER_SUFFIXES]
    if others:
        print(
            f"note: {len(others)} pictures in {folder} are left out, {others[0]} is the first: "
            f"their format is not read; convert them to .jpg or .png to use them",
            file=sys.stderr,
        )
    if not found:
        raise EvaluationError(
            f"no pictures in {folder} and below ({', '.join(PICTURE_SUFFIXES)}); pass their folder "
            "as --data-path"
        )
    return found


def _files(folder: Path, above: str, seen: set[str]) -> Iterator[str]:
    """Yield the names of all files below a folder, with their folders; hidden ones are left out.

    Args:
        folder: The folder.
        above: Put before the names: the folders between the first one and this one.
        seen: Real paths of the folders so far, so that a link to one of them is no endless loop.
    """
    with os.scandir(folder) as entries:
        # A leading dot: macOS leaves "._COCO_val2014_000000226988.jpg" on foreign disks.
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_file():
            yield above + entry.name
        elif entry.is_dir() and (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            yield from _files(folder / entry.name, f"{above}{entry.name}/", seen)


def sample_ids(pictures: Mapping[ImageId, str], count: int, *, seed: int) -> list[ImageId]:
    """Return a random choice of image ids, or all of them, shuffled, where there are fewer."""
    return random.Random(seed).sample(list(pictures), min(count, len(pictures)))


def find_ids(
    ids: Sequence[ImageId], pictures: Mapping[ImageId, str], *, path: Path, folder: Path
) -> list[ImageId]:
    """Return the ids under which a folder has the pictures that a file lists, in the file's order.

    A name that is no id of the folder stands for the only picture that is called so, folders and
    suffix aside.

    Args:
        ids: From the file.
        pictures: Names by id, from `pictures_in`.
        path: The file, for messages.
        folder: The folder, for messages.
    Raises:
        EvaluationError: Naming the first that has no picture, and how many have none.
    """
    stems: dict[str, list[ImageId]] = {}
    for image_id, name in pictures.items():
        stems.setdefault(PurePath(name).stem, []).append(image_id)
    found: dict[ImageId, None] = {}
    missing: list[ImageId] = []
    for image_id in ids:
        called = [] if isinstance(image_id, int) else stems.get(_stem(image_id), [])
        if image_id in pictures:
            found[image_id] = None
        elif len(called) == 1:
            found[called[0]] = None
        else:
            missing.append(image_id)
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} image ids of {path} have no picture in {folder}, "
            f"{missing[0]} is the first; pass the right --data-path (scripts/download_data.sh "
            "fetches COCO's)"
        )
    return list(found)


def _stem(name: str) -> str:
    path = PurePath(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def ids_hash(ids: Sequence[ImageId]) -> str:
    """Return the SHA-256 of the image ids in order, joined by commas."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
