"""Preprocessing, against a plain PIL and numpy pipeline written here from the facts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.images import CLIP_MEAN, CLIP_STD, clip_pixels, pad_to_square


def photograph(width: int, height: int) -> Image.Image:
    """Return a picture with smooth and sharp parts, different at each edge."""
    rng = np.random.default_rng(width * 1000 + height)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    smooth = np.stack([x, y, (x + y) / 2], axis=-1) * 200
    noise = rng.integers(0, 56, (height, width, 3))
    return Image.fromarray((smooth + noise).astype(np.uint8), "RGB")


def plain_clip(image: Image.Image, size: int) -> np.ndarray:
    """Shortest edge bicubic, centre crop, scale, normalise: as transformers 4.29.2 does on PIL."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    new = (size, new_long) if width < height else (new_long, size)
    resized = np.asarray(image.resize(new, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    cropped = resized[top : top + size, left : left + size].astype(np.float64) / 255
    return ((cropped - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(640, 480), (427, 640), (336, 336), (500, 333), (100, 81)])
@pytest.mark.parametrize("size", [336, 96])
def test_clip_pixels_equal_a_plain_pipeline(shape: tuple[int, int], size: int) -> None:
    image = photograph(*shape)

    pixels = clip_pixels([image], size=size).numpy()

    assert pixels.shape == (1, 3, size, size)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0], plain_clip(image, size), atol=1e-6)


@pytest.mark.parametrize("shape", [(640, 480), (427, 640), (10, 11)])
def test_padding_centres_the_picture_on_a_square(shape: tuple[int, int]) -> None:
    image, color = photograph(*shape), (122, 116, 104)

    square = np.asarray(pad_to_square(image, color))

    side = max(shape)
    left, top = (side - shape[0]) // 2, (side - shape[1]) // 2
    inside = square[top : top + shape[1], left : left + shape[0]]
    assert square.shape == (side, side, 3)
    assert (inside == np.asarray(image)).all()
    assert (square != color).any(-1).sum() <= shape[0] * shape[1]


def test_a_square_is_not_padded() -> None:
    image = photograph(20, 20)

    assert pad_to_square(image, (0, 0, 0)) is image
