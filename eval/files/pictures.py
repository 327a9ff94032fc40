"""Open pictures: the one place that knows what PIL raises, and pictures inside of pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from eval.errors import EvaluationError

# What PIL raises for files that are no pictures, are cut off, or far too large: a broken PNG is a
# SyntaxError or a ValueError to it.
BROKEN: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# Widest and highest that a picture is embedded in a page, in pixels.
THUMBNAIL_SIZE: Final = (320, 480)
THUMBNAIL_QUALITY: Final = 75


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture, and turn what PIL raises in the `with` block into one sentence.

    Raises:
        EvaluationError: If it can't be read.
    """
    try:
        with Image.open(path) as image:
            yield image
    except BROKEN as error:
        raise EvaluationError(
            f"picture {path} can't be read ({error}); replace it and run the same command again"
        ) from error


def data_url(image: Image.Image, size: tuple[int, int], quality: int) -> tuple[str, int, int]:
    """Return a picture as a JPEG data URL with its width and height in pixels.

    It is not turned by its EXIF data, which is left out: people and judges see what models saw.

    Args:
        image: The picture.
        size: Largest width and height.
        quality: Of the JPEG, up to 100.
    """
    small = image.convert("RGB")
    small.thumbnail(size)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode(), *small.size


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data URL with its size; without a URL, `problem` says why."""

    url: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(folder: Path, name: str | None) -> Thumbnail:
    """Return a small picture for a page."""
    if name is None:
        return Thumbnail(problem=f"no picture with this id in {folder}")
    try:
        with open_picture(folder / name) as image:
            image.draft("RGB", THUMBNAIL_SIZE)
            return Thumbnail(*data_url(image, THUMBNAIL_SIZE, THUMBNAIL_QUALITY))
    except EvaluationError as error:
        cause = error.__cause__
        none = isinstance(cause, UnidentifiedImageError)
        return Thumbnail(
            problem=f"{name} is no picture" if none else f"{name} can't be read: {cause}"
        )
