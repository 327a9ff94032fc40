"""Replace and remove files of an install, each as a whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from eah.swap.place import Place
from eah.swap.states import note_of

TEMPORARY: Final = ".eah"


def replace_file(path: Path, content: bytes, *, like: Path) -> None:
    """Replace a file as a whole, with another's permissions: a crash leaves the old or the new.

    A link is replaced by a file. What it points to, perhaps a cache of many environments, stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like.exists():
            shutil.copymode(like, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def keep_original(place: Place, content: bytes) -> None:
    """Keep an original beside the file: the same link if the file is one, and a note about it."""
    if place.file.is_symlink() and place.file.read_bytes() == content:
        _copy_link(place.file, place.original)
    else:
        replace_file(place.original, content, like=place.file)
    replace_file(place.checksum, note_of(place, content), like=place.file)


def set_aside(place: Place) -> Path:
    """Move what is kept as the original, but isn't, to a free name; return that."""
    free, number = place.aside_path, 1
    while os.path.lexists(free):
        number += 1
        free = place.aside_path.with_name(f"{place.aside_path.name}.{number}")
    place.original.replace(free)
    return free


def remove_bytecode(place: Place) -> None:
    """Remove compiled files, which some installs use without a look at the source's date."""
    for compiled in place.file.parent.glob(f"__pycache__/{place.file.stem}*.pyc"):
        compiled.unlink(missing_ok=True)


def leftovers(place: Place) -> list[Path]:
    """Return what a swap, or an interrupted one, has left beside the file."""
    temporary = place.file.parent.glob(f".{place.file.stem}*{TEMPORARY}")
    return [path for path in (place.original, place.checksum) if os.path.lexists(path)] + [
        *temporary
    ]


def _copy_link(link: Path, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.symlink_to(os.readlink(link))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
