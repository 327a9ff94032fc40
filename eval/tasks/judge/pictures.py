"""Pictures as the judge gets them: scaled down, as JPEG, in a data URL."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from PIL import Image

from eval.errors import EvaluationError

QUALITY: Final = 90
# What PIL raises for pictures that are none, cut off, or far too large.
BROKEN: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was looked at once.

    Attributes:
        path: Its file.
        sha256: Of the file.
        width: As it is sent, in pixels, rounded up.
        height: Likewise.
    """

    path: Path
    sha256: str
    width: int
    height: int


def read_pictures(
    folder: Path, names: Mapping[int, str], ids: Sequence[int], *, size: int
) -> dict[int, Picture]:
    """Return the pictures of a run by image id, after reading each to its end.

    Args:
        folder: Where they are.
        names: File names by image id.
        ids: Image ids of the run.
        size: Longest side that is sent, in pixels.
    Raises:
        EvaluationError: If one is missing or can't be read, before anything is paid.
    """
    missing = [image_id for image_id in ids if image_id not in names]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} pictures are missing from {folder}, that of image id "
            f"{missing[0]} is the first; pass the right --data-path (scripts/download_data.sh "
            "fetches COCO's)"
        )
    return {image_id: _read(folder / names[image_id], size) for image_id in ids}


def data_url(path: Path, size: int) -> str:
    """Return a picture as a data URL, no side longer than `size` pixels.

    It is not turned by its EXIF data, which is left out: the judge sees what the models saw.
    """
    content = io.BytesIO()
    with _readable(path), Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((size, size))
    small.save(content, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _read(path: Path, size: int) -> Picture:
    with _readable(path):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            scale = min(1.0, size / max(image.size))
            width, height = (ceil(side * scale) for side in image.size)
    return Picture(path, hashlib.sha256(content).hexdigest(), width, height)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what PIL raises into one sentence."""
    try:
        yield
    except BROKEN as error:
        raise EvaluationError(
            f"picture {path} can't be read ({error}); replace it and run the same command again"
        ) from error
