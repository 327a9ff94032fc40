"""Files, arrays and PIL pictures of any mode as 8-bit RGB: for models, judges and report pages.

The only place that knows what PIL raises. PIL's own `convert` clips deep pictures: a 16-bit grey
one becomes white, one of floats black. EXIF data does not turn a picture, as in the reference
wrappers.
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
"""What a picture may be passed as: a file, a PIL picture, or an array as in `to_picture`."""

# What PIL raises for files that are not pictures, or are truncated, damaged or far too large: a
# broken PNG is a SyntaxError, a TIFF's missing tag a KeyError.
BROKEN: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    AssertionError, BufferError, EOFError, MemoryError, RuntimeError, struct.error, zlib.error,
    Image.DecompressionBombError, ModelError,
)  # fmt: skip
# PIL's other formats are left alone: it starts a program for EPS, reads FITS without a bound, and
# knows no more than the name of some.
FORMATS: Final = (
    "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "TGA", "PCX",
    "PSD", "SGI", "QOI", "DDS", "ICO", "ICNS",
)  # fmt: skip
POSTSCRIPT: Final = (b"%!PS", b"\xc5\xd0\xd3\xc6")
# Preprocessing resizes the short side or pads it to the long one, so that a strip of a few
# kilobytes would take gigabytes. With these bounds reading and preprocessing take 2.8 GB
# at most, a JPEG 2000 of 12,000 x 12,000 the most.
MAX_SIDE: Final = 12_000
MAX_RATIO: Final = 200
# Several formats are read whole before their pixels are. As many pixels take less.
MAX_BYTES: Final = 1 << 29
# PIL makes a Python object of each strip that the header of a TIFF lists: 100 bytes of one.
MAX_TIFF_HEADER: Final = 4 << 20
SHOWN: Final = 200  # characters of what a library says
# PIL opens 16-bit files of these formats as 32-bit integers, spread over 16 bits.
SIXTEEN_BIT_FORMATS: Final = ("PNG", "PPM")
WHITE_IS_ZERO: Final = 0  # of TIFF


def read_picture(path: Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """Read a picture to its end and return it as 8-bit RGB.

    Args:
        path: The picture.
        draft: Decode a JPEG no larger than this size needs.
    Raises:
        ModelError: If it can't be read, or is of a size or depth that models are not shown.
    """
    try:
        with warnings.catch_warnings(), _open(path) as stream:
            # PIL warns of what models do not see, and of half of what it takes for a bomb.
            warnings.simplefilter("ignore")
            with _identify(stream) as image:
                if draft is not None:
                    image.draft("RGB", draft)
                return to_rgb(image)
    except BROKEN as error:
        # Only where it is a file: to open a pipe waits for ever.
        if os.path.isfile(path) and is_lfs_pointer(path):
            raise ModelError(
                f"picture {printable(path)} is a Git LFS pointer, not the picture that it stands "
                "for; run `git lfs pull` in that folder and try again"
            ) from error
        raise ModelError(
            f"picture {printable(path)} can't be read ({_reason(error)}); replace it and try again"
        ) from error


def to_picture(image: Picture) -> Image.Image:
    """Return what a user passes as a picture as 8-bit RGB.

    Args:
        image: A file, a PIL picture, or an array of uint8 from 0 to 255, shape (height, width, 3)
            or (height, width).
    Raises:
        ModelError: If it is something else, or can't be read.
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

    Of 16-bit grey the high byte is taken, as PIL does with 16-bit color. Transparency is left out.

    Raises:
        ModelError: If the picture is a strip, very large, or of 32 bits.
    """
    _check_size(image.size)
    image.load()
    _check_size(image.size)  # an icon's own size may be another than the one that its file lists
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        return _from_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ModelError(
            f"its pixels are 32-bit {kind}, and what is black and what is white is not known; "
            "pictures of 8 or 16 bits are read: scale its values and save it as one of these"
        )
    return image.convert("RGB")


def _check_size(size: tuple[int, int]) -> None:
    """Raise ModelError for a picture that is a strip or very large."""
    short, long = sorted(size)
    if long > MAX_SIDE or long > MAX_RATIO * short or not short:
        raise ModelError(
            f"it has {size[0]} x {size[1]} pixels; allowed are sides of up to {MAX_SIDE}, one at "
            f"most {MAX_RATIO} times as long as the other: crop or split it"
        )


class _Stream(io.BufferedReader):
    """A picture's file; what is read of it is counted up to a limit, if one is set."""

    left: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if self.left is not None:
            self.left -= len(found)
            if self.left < 0:
                raise ModelError(
                    f"the list of its parts takes more than {MAX_TIFF_HEADER:,} bytes; save it as "
                    "a .png"
                )
        return found


def _open(path: Path) -> _Stream:
    """Open a file that is one, and not a pipe or device named like a picture."""
    # Without O_NONBLOCK a pipe waits for whoever writes into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = _Stream(io.FileIO(path, opener=lambda name, _: os.open(name, flags)))
    state = os.fstat(stream.fileno())
    problem = None
    if not stat.S_ISREG(state.st_mode):
        problem = "it is a pipe or a device, not a file"
    elif not state.st_size:
        problem = "it is empty"
    elif state.st_size > MAX_BYTES:
        problem = f"it has {state.st_size:,} bytes; allowed are {MAX_BYTES:,}"
    if problem is not None:
        stream.close()
        raise ModelError(problem)
    return stream


@cache
def _formats() -> tuple[str, ...]:
    Image.init()  # imports what knows them
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _identify(stream: _Stream) -> Image.Image:
    """Return the picture in a file, whose pixels are not read yet."""
    start = stream.peek(4)
    if start.startswith(POSTSCRIPT):
        raise ModelError("PostScript is not read, it is a program; save it as a .png")
    if start.startswith((b"II", b"MM")):
        stream.left = MAX_TIFF_HEADER
    image = Image.open(stream, formats=_formats())
    stream.left = None
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as RGB, by the highest eight bits of each value."""
    values: Any = np.asarray(image)
    bits = 16
    if isinstance(image, TiffImageFile):
        # PIL leaves the 12 bits of microscopes and scanners as they are, and white that is zero.
        bits = int(image.tag_v2.get(BITSPERSAMPLE, (bits,))[0])
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            values = (1 << bits) - 1 - values
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")


def _reason(error: BaseException) -> str:
    """Return what is wrong with a picture, without the file's name and as one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture that PIL can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = printable(" ".join(str(error).split()))
    return text[:SHOWN] or type(error).__name__
