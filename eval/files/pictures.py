"""Pictures of a benchmark, and pictures embedded in pages."""

from __future__ import annotations

import base64
import io
import os.path
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from eval.errors import EvaluationError
from models import pictures
from models.errors import ModelError
from models.pictures import to_rgb

# Largest width and height of a picture embedded in a page, in pixels.
THUMBNAIL_SIZE: Final = (320, 480)
THUMBNAIL_QUALITY: Final = 75


def read_picture(path: Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """Read a complete picture and return it as 8-bit RGB.

    Args:
        path: The picture.
        draft: Decode a JPEG only as large as this size needs; None for full resolution.
    Raises:
        EvaluationError: If it can't be read, or has a size or depth that is not supported.
    """
    try:
        return pictures.read_picture(path, draft)
    except ModelError as error:
        raise EvaluationError(str(error)) from error.__cause__


def is_inside(folder: Path, name: str) -> bool:
    """Return whether a picture's path is inside a folder; symlinks in the folder are allowed."""
    return Path(os.path.abspath(folder / name)).is_relative_to(os.path.abspath(folder))


def unreadable_pictures(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Open all pictures and return those that can't be read, with the reason for each."""
    found = {}
    for name in names:
        try:
            read_picture(folder / name)
        except EvaluationError as error:
            found[name] = str(error)
    return found


def data_url(image: Image.Image, size: tuple[int, int], quality: int) -> tuple[str, int, int]:
    """Return a picture as a JPEG data URL with its width and height in pixels.

    EXIF data is dropped, and does not rotate the picture: people and judges see what models saw.

    Args:
        image: The picture.
        size: Largest width and height.
        quality: JPEG quality, up to 100.
    """
    small = to_rgb(image)
    small.thumbnail(size)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode(), *small.size


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data URL with its size; without a URL, `problem` has the reason."""

    url: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(folder: Path, name: str | None, size: tuple[int, int] = THUMBNAIL_SIZE) -> Thumbnail:
    """Return a small picture for a page, at most `size` pixels wide and high."""
    if name is None:
        return Thumbnail(problem=f"no picture with this id in {folder}")
    try:
        image = read_picture(folder / name, size)
        return Thumbnail(*data_url(image, size, THUMBNAIL_QUALITY))
    except EvaluationError as error:
        cause = error.__cause__
        none = isinstance(cause, UnidentifiedImageError)
        return Thumbnail(
            problem=f"{name} is not a picture" if none else f"{name} can't be read: {cause}"
        )
