"""Replace and remove files of an install, each atomically."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from eah.swap.place import Place
from eah.swap.states import note_of

TEMPORARY: Final = ".eah"


def replace_file(path: Path, content: bytes, *, like: Path) -> None:
    """Replace a file atomically, with another's permissions: a crash leaves the old or the new.

    A link is replaced by a file. Its target, perhaps a shared cache, is unchanged.
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
    """Keep an original next to the file, as a link if the file is one, and write its note."""
    if place.file.is_symlink() and place.file.read_bytes() == content:
        _copy_link(place.file, place.original)
    else:
        replace_file(place.original, content, like=place.file)
    replace_file(place.checksum, note_of(place, content), like=place.file)


def set_aside(place: Place) -> Path:
    """Move a kept file that is not the original to a free name, and return that."""
    free, number = place.aside_path, 1
    while os.path.lexists(free):
        number += 1
        free = place.aside_path.with_name(f"{place.aside_path.name}.{number}")
    place.original.replace(free)
    return free


def remove_bytecode(place: Place) -> None:
    """Remove compiled files, which some installs use without checking the source's date."""
    for compiled in place.file.parent.glob(f"__pycache__/{place.file.stem}*.pyc"):
        compiled.unlink(missing_ok=True)


def leftovers(place: Place) -> list[Path]:
    """Return the files that a complete or interrupted swap left next to the file."""
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
