"""Pictures of any mode as 8-bit RGB: for models, judges and report pages alike.

PIL's own `convert` clips deep pictures: a 16-bit grey one becomes white, one of floats black.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from models.errors import ModelError

# Preprocessing resizes the short side or pads it to the long one, so that a strip of a few
# kilobytes would take gigabytes. With these bounds it is 1.2 GB at most.
MAX_SIDE: Final = 20_000
MAX_RATIO: Final = 200
# PIL opens 16-bit files of these formats as 32-bit integers, spread over 16 bits.
SIXTEEN_BIT_FORMATS: Final = ("PNG", "PPM")
WHITE_IS_ZERO: Final = 0  # of TIFF


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture as 8-bit RGB.

    Of 16-bit grey the high byte is taken, as PIL does with 16-bit color. Transparency is left out.

    Raises:
        ModelError: If the picture is a strip, very large, or of 32 bits.
    """
    check_size(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        return _from_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ModelError(
            f"its pixels are 32-bit {kind}, and what is black and what is white is not known; "
            "pictures of 8 or 16 bits are read: scale its values and save it as one of these"
        )
    return image.convert("RGB")


def check_size(image: Image.Image) -> None:
    """Check that preprocessing makes no picture of gigabytes of this one.

    Raises:
        ModelError: Naming the sides and the bounds.
    """
    short, long = sorted(image.size)
    if long > MAX_SIDE or long > MAX_RATIO * short:
        raise ModelError(
            f"it has {image.width} x {image.height} pixels; allowed are sides of up to {MAX_SIDE}, "
            f"one at most {MAX_RATIO} times as long as the other: crop it or cut it into pieces"
        )


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
