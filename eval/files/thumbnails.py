"""Small pictures inside a page, as data URLs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

# Widest and highest that a picture is embedded, in pixels.
PICTURE_SIZE: Final = (320, 480)
JPEG_QUALITY: Final = 75


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data URL with its size; without a URL, `problem` says why."""

    url: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(folder: Path, name: str | None) -> Thumbnail:
    """Return a picture scaled down, without turning it by its EXIF data: as the model saw it."""
    if name is None:
        return Thumbnail(problem=f"no picture with this id in {folder}")
    content = io.BytesIO()
    try:
        with Image.open(folder / name) as image:
            image.draft("RGB", PICTURE_SIZE)
            small = image.convert("RGB")
        small.thumbnail(PICTURE_SIZE)
        small.save(content, "JPEG", quality=JPEG_QUALITY)
    except UnidentifiedImageError:
        return Thumbnail(problem=f"{name} is no picture")
    # A broken PNG is a SyntaxError or a ValueError to PIL, and too many pixels an error of its own.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Thumbnail(problem=f"{name} can't be read: {error}")
    encoded = base64.b64encode(content.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *small.size)
