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
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from eval.errors import EvaluationError
from eval.files.image_ids import PICTURE_SUFFIXES, ImageId, image_id_of
from models.errors import printable

# Pictures that PIL does not read.
OTHER_SUFFIXES: Final = (".heic", ".heif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw")
NUM_IMAGES: Final = 500
# Why files are left out.
NOT_READ: Final = "their format is not read; convert them to .jpg or .png to use them"
NO_PICTURE: Final = f"their names end in none of {', '.join(PICTURE_SUFFIXES)}"
HIDDEN: Final = "their names begin with a dot, as those of macOS's own files beside pictures do"
NO_FILE: Final = "they are links to nothing, or pipes or devices"


def pictures_in(folder: Path) -> dict[ImageId, str]:
    """Return the names of the pictures in a folder and below by image id, in their own order.

    The id is a number where `image_id_of` finds one in the name, else the name below the folder.
    Notes say how many files are left out, and why.

    Raises:
        EvaluationError: If there is none, two have the same id, or a folder can't be read.
    """
    found: dict[ImageId, str] = {}
    left_out: dict[str, list[str]] = {}
    for name, is_file in sorted(_files(folder)):
        if (reason := _why_not(name, is_file)) is not None:
            left_out.setdefault(reason, []).append(name)
            continue
        image_id = image_id_of(name)
        assert image_id is not None  # it ends in a suffix
        if image_id in found:
            raise EvaluationError(
                f"{found[image_id]} and {name} in {folder} have the same image id {image_id}; "
                "remove one of them, or pass the folder of one as --data-path"
            )
        found[image_id] = name
    for reason, of in left_out.items():
        what = "pictures" if reason == NOT_READ else "files"
        print(
            f"note: {len(of)} {what} in {folder} are left out, {printable(of[0])} is the first: "
            f"{reason}",
            file=sys.stderr,
        )
    if not found:
        raise EvaluationError(
            f"no pictures in {folder} and below ({', '.join(PICTURE_SUFFIXES)}); pass their folder "
            "as --data-path"
        )
    return found


def _why_not(name: str, is_file: bool) -> str | None:
    """Return why a file is not taken for a picture; None if it is."""
    path = PurePath(name)
    suffix = path.suffix.lower()
    if suffix in OTHER_SUFFIXES:
        return NOT_READ
    if suffix not in PICTURE_SUFFIXES:
        return NO_PICTURE
    if path.name.startswith("."):
        return HIDDEN
    return None if is_file else NO_FILE


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names of what is no folder, here and below, and whether each is a file.

    Hidden folders are left out, and of hidden files all but pictures. A folder that is linked from
    several places is read once, under its own name if that is below, too.
    """
    seen: set[str] = set()
    here, links = deque([""]), deque[str]()
    while here or links:
        above = here.popleft() if here else links.popleft()
        real = os.path.realpath(folder / above)
        if real in seen:  # or a link to a folder above would be an endless loop
            continue
        seen.add(real)
        for entry in _entries(folder / above):
            name = f"{above}{entry.name}"
            is_hidden = entry.name.startswith(".")
            is_link = entry.is_symlink()  # to ask the disk for each of 40,000 takes long
            if not (os.path.isdir(entry.path) if is_link else entry.is_dir()):
                if not is_hidden or PurePath(name).suffix.lower() in PICTURE_SUFFIXES:
                    yield name, os.path.isfile(entry.path) if is_link else entry.is_file()
            elif not is_hidden:
                (links if is_link else here).append(f"{name}/")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise EvaluationError(
            f"{folder} can't be read: {error.strerror}; its pictures would be left out"
        ) from error


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
    for image_id in dict.fromkeys(ids):
        called = [] if isinstance(image_id, int) else stems.get(_stem(image_id), [])
        if image_id in pictures:
            found[image_id] = None
        elif len(called) == 1:
            found[called[0]] = None
        else:
            missing.append(image_id)
    if len(found) + len(missing) < len(ids):
        print(
            f"note: {path} has {len(ids)} image ids of {len(found)} pictures: some have two names "
            "there, and each is taken once",
            file=sys.stderr,
        )
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
