"""Git LFS pointers: the few lines that stand in a clone for a large file that was not fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.errors import ModelError

POINTER_START: Final = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(path: Path) -> bool:
    """Tell whether a file is a Git LFS pointer; False where it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER_START)) == POINTER_START
    except OSError:
        return False


def refuse_lfs_pointer(path: Path) -> None:
    """Check that a file of a checkpoint is the file itself.

    Raises:
        ModelError: If it is a Git LFS pointer.
    """
    if is_lfs_pointer(path):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file that it stands for; run `git lfs pull` in "
            "that folder, or download the checkpoint again"
        )
