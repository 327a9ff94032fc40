"""Select the pictures to caption: those of a list, in its order, or a seeded sample of a folder.

The papers took the first 500 of a shuffled `os.listdir`, which differs between file systems. Here
the sample depends only on the file names and the seed, and any published captions file can be used
as a list of image ids.
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

# Suffixes of pictures that PIL does not read.
OTHER_SUFFIXES: Final = (".heic", ".heif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw")
NUM_IMAGES: Final = 500
# Reasons why files are left out.
NOT_READ: Final = "their format is not supported; convert them to .jpg or .png to use them"
NO_PICTURE: Final = f"their names do not end in {', '.join(PICTURE_SUFFIXES)}"
HIDDEN: Final = "their names begin with a dot, like the files that macOS adds next to pictures"
NO_FILE: Final = "they are broken links, pipes or devices"


def pictures_in(folder: Path) -> dict[ImageId, str]:
    """Return the names of the pictures in a folder and its subfolders by image id, sorted by name.

    The id is a number if `image_id_of` finds one in the name, otherwise the path below the folder.
    Notes on standard error state how many files are left out, and why.

    Raises:
        EvaluationError: If there are no pictures, two have the same id, or a folder can't be read.
    """
    found: dict[ImageId, str] = {}
    left_out: dict[str, list[str]] = {}
    for name, is_file in sorted(_files(folder)):
        if (reason := _skip_reason(name, is_file)) is not None:
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
            f"note: {len(of)} {what} in {folder} are left out (the first is {printable(of[0])}): "
            f"{reason}",
            file=sys.stderr,
        )
    if not found:
        raise EvaluationError(
            f"no pictures in {folder} or its subfolders ({', '.join(PICTURE_SUFFIXES)}); pass the "
            "folder of the pictures as --data-path"
        )
    return found


def _skip_reason(name: str, is_file: bool) -> str | None:
    """Return why a file is left out; None if it is a picture."""
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
    """Yield the paths of everything but folders, recursively, and whether each is a file.

    Hidden folders are left out, and hidden files unless they are pictures. A folder with several
    links to it is read once, under its own name if it is inside `folder` as well.
    """
    seen: set[str] = set()
    here, links = deque([""]), deque[str]()
    while here or links:
        above = here.popleft() if here else links.popleft()
        real = os.path.realpath(folder / above)
        if real in seen:  # a link to a parent folder would be an endless loop
            continue
        seen.add(real)
        for entry in _entries(folder / above):
            name = f"{above}{entry.name}"
            is_hidden = entry.name.startswith(".")
            is_link = entry.is_symlink()  # avoids a slow disk access for each of 40,000 files
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
            f"{folder} can't be read ({error.strerror}), and its pictures would be missing; allow "
            "reading it, or pass another --data-path"
        ) from error


def sample_ids(pictures: Mapping[ImageId, str], count: int, *, seed: int) -> list[ImageId]:
    """Return a random sample of image ids; if there are not enough, all of them, shuffled."""
    return random.Random(seed).sample(list(pictures), min(count, len(pictures)))


def find_ids(
    ids: Sequence[ImageId], pictures: Mapping[ImageId, str], *, path: Path, folder: Path
) -> list[ImageId]:
    """Return a folder's ids of the pictures that a file lists, in the file's order.

    If a name is not an id of the folder, it matches a picture with the same name, without folders
    and suffix, provided that there is only one.

    Args:
        ids: Ids of the file.
        pictures: Names by id, from `pictures_in`.
        path: The file, for messages.
        folder: The folder, for messages.
    Raises:
        EvaluationError: If ids have no picture, naming the first and their number.
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
            f"note: {path} has {len(ids)} image ids for {len(found)} pictures: some pictures are "
            "listed twice, and each is used once",
            file=sys.stderr,
        )
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} image ids of {path} have no picture in {folder}, the "
            f"first is {missing[0]}; pass the right --data-path (scripts/data/download.sh fetches "
            "COCO's pictures)"
        )
    return list(found)


def _stem(name: str) -> str:
    path = PurePath(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def ids_hash(ids: Sequence[ImageId]) -> str:
    """Return the SHA-256 of the image ids in order, joined by commas."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
