"""Preprocessing, against a plain PIL and numpy pipeline written here from the facts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image

from models import VLM
from models.blip import InstructBlip, MiniGPT4
from models.images import CLIP_MEAN, CLIP_STD, ClipPreprocessing, pad_to_square
from models.llava import Llava, Shikra


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

    pixels = ClipPreprocessing(size)([image]).numpy()

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


def plain_squash(image: Image.Image, size: int) -> np.ndarray:
    """Both sides bicubic, scale, normalise: torchvision's Resize((size, size)) on PIL, ToTensor."""
    resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    return ((resized.astype(np.float64) / 255 - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


def plain_pad(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Rows or columns of a color on both sides, by arrays."""
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = color
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return Image.fromarray(square)


@pytest.fixture(scope="module")
def real_photograph() -> Image.Image:
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("wrapper", "protocol", "size", "plain"),
    [
        (Llava, "opera", 336, lambda image: plain_clip(image, 336)),
        (
            Llava,
            "official",
            336,
            lambda image: plain_clip(plain_pad(image, (122, 116, 104)), 336),
        ),
        (Shikra, "opera", 224, lambda image: plain_clip(image, 224)),
        (
            Shikra,
            "official",
            224,
            lambda image: plain_clip(plain_pad(image, (255, 255, 255)), 224),
        ),
        (InstructBlip, "opera", 224, lambda image: plain_squash(image, 224)),
        (InstructBlip, "official", 224, lambda image: plain_squash(image, 224)),
        (MiniGPT4, "opera", 224, lambda image: plain_squash(image, 224)),
        (MiniGPT4, "official", 224, lambda image: plain_squash(image, 224)),
    ],
)
def test_each_protocol_on_a_real_photograph_equals_a_plain_pipeline(
    real_photograph: Image.Image,
    wrapper: type[VLM],
    protocol: str,
    size: int,
    plain: Callable[[Image.Image], np.ndarray],
    turned: bool,
) -> None:
    image = real_photograph.rotate(90, expand=True) if turned else real_photograph
    vlm = object.__new__(wrapper)  # preprocessing needs no weights
    vision = SimpleNamespace(image_size=size)
    vlm.model = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    vlm.protocol = protocol

    pixels = vlm.preprocess([image]).numpy()

    assert image.size[0] != image.size[1]
    assert pixels.shape == (1, 3, size, size)
    np.testing.assert_allclose(pixels[0], plain(image), atol=1e-6, rtol=0)
