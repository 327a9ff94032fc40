"""Read files, arrays and PIL pictures of any mode as 8-bit RGB: for models, judges and reports.

All errors of PIL are handled here. PIL's own `convert` clips deep pictures: a 16-bit grey one
becomes white, one of floats black. As in the reference wrappers, EXIF orientation is ignored.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from models.errors import ModelError, printable
from models.sources import is_lfs_pointer

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]
"""Accepted types of a picture: a file, a PIL picture, or an array as in `to_picture`."""

# What PIL raises for files that are not pictures, or are truncated, damaged or far too large: a
# broken PNG is a SyntaxError, a TIFF's missing tag a KeyError.
BROKEN: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    AssertionError, BufferError, EOFError, MemoryError, RuntimeError, struct.error, zlib.error,
    Image.DecompressionBombError, ModelError,
)  # fmt: skip
# PIL's other formats are not read: for EPS it starts a program, it reads FITS without a limit, and
# some formats it can only identify.
FORMATS: Final = (
    "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "TGA", "PCX",
    "PSD", "SGI", "QOI", "DDS", "ICO", "ICNS",
)  # fmt: skip
POSTSCRIPT: Final = (b"%!PS", b"\xc5\xd0\xd3\xc6")
# Preprocessing resizes the short side or pads it to the long one, so a strip of a few kilobytes
# would take gigabytes. With these limits reading and preprocessing take at most 2.8 GB (for a
# JPEG 2000 of 12,000 x 12,000).
MAX_SIDE: Final = 12_000
MAX_RATIO: Final = 200
# Files of several formats are read whole before they are decoded. The largest allowed picture takes
# less.
MAX_BYTES: Final = 1 << 29
# PIL creates a Python object of about 100 bytes for each strip that the header of a TIFF lists.
MAX_TIFF_HEADER: Final = 4 << 20
SHOWN: Final = 200  # characters of a library's error message
# PIL opens 16-bit files of these formats as 32-bit integers, spread over 16 bits.
SIXTEEN_BIT_FORMATS: Final = ("PNG", "PPM")
WHITE_IS_ZERO: Final = 0  # of TIFF


def read_picture(path: Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """Read a whole picture and return it as 8-bit RGB.

    Args:
        path: The picture.
        draft: Decode a JPEG no larger than this size needs.
    Raises:
        ModelError: If it can't be read, or its size or depth is not supported.
    """
    try:
        with warnings.catch_warnings(), _open(path) as stream:
            # PIL warns about metadata, and about pictures above half of its size limit.
            warnings.simplefilter("ignore")
            with _identify(stream) as image:
                if draft is not None:
                    image.draft("RGB", draft)
                return to_rgb(image)
    except BROKEN as error:
        # Only for files: opening a pipe would wait forever.
        if os.path.isfile(path) and is_lfs_pointer(path):
            raise ModelError(
                f"picture {printable(path)} is a Git LFS pointer, not the picture itself; run "
                "`git lfs pull` in that folder and try again"
            ) from error
        raise ModelError(
            f"picture {printable(path)} can't be read ({_reason(error)}); replace it and try again"
        ) from error


def to_picture(image: Picture) -> Image.Image:
    """Return a user's picture as 8-bit RGB.

    Args:
        image: A file, a PIL picture, or an array of uint8 from 0 to 255, shape (height, width, 3)
            or (height, width).
    Raises:
        ModelError: If it has another type, or can't be read.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_picture(Path(image))
    if isinstance(image, np.ndarray):
        is_grey = image.ndim == 2
        if not (is_grey or image.shape[2:] == (3,)) or image.dtype != np.uint8 or not image.size:
            raise ModelError(
                f"an array of shape {image.shape} and {image.dtype} is not a picture; one has "
                "shape (height, width, 3) or (height, width) and uint8 values from 0 to 255: "
                "transpose or scale it, or pass a file"
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise ModelError(
            f"{type(image).__name__} is not a picture; pass a file's path, a PIL picture or a "
            "numpy array"
        )
    try:
        return to_rgb(image)
    except BROKEN as error:
        raise ModelError(
            f"the picture can't be read ({_reason(error)}); pass another one"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture as 8-bit RGB.

    16-bit grey is reduced to its high byte, as PIL does with 16-bit color. Transparency is ignored.

    Raises:
        ModelError: If the picture is a strip, very large, or has 32-bit pixels.
    """
    _check_size(image.size)
    image.load()
    _check_size(image.size)  # an icon's actual size may differ from the one in its header
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        return _from_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ModelError(
            f"its pixels are 32-bit {kind}, whose black and white values are unknown; pictures of "
            "8 or 16 bits are read: scale its values and save it as one of these"
        )
    return image.convert("RGB")


def _check_size(size: tuple[int, int]) -> None:
    """Raise ModelError for a picture that is a strip or very large."""
    short, long = sorted(size)
    if long > MAX_SIDE or long > MAX_RATIO * short or not short:
        raise ModelError(
            f"it has {size[0]} x {size[1]} pixels; sides may be up to {MAX_SIDE}, and one at "
            f"most {MAX_RATIO} times as long as the other: crop or split it"
        )


class _Stream(io.BufferedReader):
    """A picture's file; refuses to read more than a limit, if one is set."""

    left: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if self.left is not None:
            self.left -= len(found)
            if self.left < 0:
                raise ModelError(
                    f"its header has more than {MAX_TIFF_HEADER:,} bytes, which is the limit; save "
                    "it as a .png"
                )
        return found


def _open(path: Path) -> _Stream:
    """Open a regular file; refuse pipes and devices that are named like pictures."""
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = _Stream(io.FileIO(path, opener=lambda name, _: os.open(name, flags)))
    state = os.fstat(stream.fileno())
    problem = None
    if not stat.S_ISREG(state.st_mode):
        problem = "it is a pipe or a device, not a file"
    elif not state.st_size:
        problem = "it is empty"
    elif state.st_size > MAX_BYTES:
        problem = f"it has {state.st_size:,} bytes; the limit is {MAX_BYTES:,}"
    if problem is not None:
        stream.close()
        raise ModelError(problem)
    return stream


@cache
def _formats() -> tuple[str, ...]:
    Image.init()  # imports PIL's plugins
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _identify(stream: _Stream) -> Image.Image:
    """Return the picture in a file; its pixels are not read yet."""
    start = stream.peek(4)
    if start.startswith(POSTSCRIPT):
        raise ModelError("it is PostScript, which is a program and is not read; save it as a .png")
    if start.startswith((b"II", b"MM")):
        stream.left = MAX_TIFF_HEADER
    image = Image.open(stream, formats=_formats())
    stream.left = None
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as RGB: the highest eight bits of each value."""
    values: Any = np.asarray(image)
    bits = 16
    if isinstance(image, TiffImageFile):
        # PIL does not scale 12-bit values (microscopes, scanners) nor invert those with white = 0.
        bits = int(image.tag_v2.get(BITSPERSAMPLE, (bits,))[0])
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            values = (1 << bits) - 1 - values
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")


def _reason(error: BaseException) -> str:
    """Return in one line why a picture can't be read, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture that PIL can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = printable(" ".join(str(error).split()))
    return text[:SHOWN] or type(error).__name__
