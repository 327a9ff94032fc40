"""Pictures of every depth and shape as 8-bit RGB, against values written here."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import ModelError
from models.images import ClipPreprocessing, Preprocessing, SquashPreprocessing
from models.pictures import MAX_RATIO, MAX_SIDE, to_picture, to_rgb

# Every high byte once, with the same byte below it.
VALUES = (np.arange(16 * 16, dtype=np.uint16) * 257).reshape(16, 16)


def tiff(values: np.ndarray, *, order: str = "<", bits: int = 16, photometric: int = 1) -> bytes:
    """Return an uncompressed grey TIFF, written by hand: PIL writes none of these."""
    height, width = VALUES.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = pairs[:, 0] << 12 | pairs[:, 1]
        data = b"".join(int(three).to_bytes(3, "big") for three in packed)
    else:
        data = values.astype(f"{order}u{bits // 8}").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
            278: height, 279: len(data)}  # fmt: skip
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, of) for tag, of in tags.items())
    end = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return start + data + end


def written(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


FILES = {
    "png": written(Image.fromarray(VALUES), "PNG"),
    "tiff": written(Image.fromarray(VALUES), "TIFF"),
    "big-endian tiff": tiff(VALUES, order=">"),
    "white is zero": tiff(65535 - VALUES, photometric=0),
    "12 bits": tiff(VALUES >> 4, bits=12),
    "jpeg 2000": written(Image.fromarray(VALUES), "JPEG2000"),
    "pgm": b"P5 16 16 65535\n" + VALUES.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_high_byte_of_deep_grey_is_taken(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        rgb = to_rgb(image)

    assert rgb.mode == "RGB"
    assert (np.asarray(rgb) == (VALUES // 256)[..., None]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_converted_as_pil_does(mode: str) -> None:
    image = Image.effect_noise((20, 10), 60).convert("RGB").convert(mode)

    assert to_rgb(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.open(io.BytesIO(tiff(VALUES, bits=32))), "integers"),
        (Image.fromarray(VALUES.astype(np.int32)), "integers"),
        (Image.fromarray(VALUES.astype(np.float32) / 65535), "floats"),
        (Image.open(io.BytesIO(b"Pf\n2 2\n-1\n" + bytes(16))), "floats"),
    ],
)
def test_32_bits_are_refused(image: Image.Image, kind: str) -> None:
    with pytest.raises(ModelError, match=f"its pixels are 32-bit {kind}, .* 8 or 16 bits are read"):
        to_rgb(image)


@pytest.mark.parametrize("turned", [False, True])
def test_strips_and_huge_pictures_are_refused(turned: bool) -> None:
    def picture(*size: int) -> Image.Image:
        return Image.new("1", size[::-1] if turned else size)

    assert to_rgb(picture(3 * MAX_RATIO, 3)).mode == "RGB"
    for size in ((3 * MAX_RATIO + 1, 3), (MAX_SIDE + 1, 200)):
        with pytest.raises(ModelError, match=r"it has \d+ x \d+ pixels; sides may be up"):
            to_rgb(picture(*size))


@pytest.mark.parametrize("shape", [ClipPreprocessing(32), ClipPreprocessing(32, (1, 2, 3)),
                                   SquashPreprocessing(32)])  # fmt: skip
def test_every_preprocessing_shows_models_the_same_grey(shape: Preprocessing) -> None:
    deep, plain = Image.fromarray(VALUES), Image.fromarray((VALUES // 256).astype(np.uint8))

    assert (shape([deep]) == shape([plain])).all()
    with pytest.raises(ModelError, match="it has 1 x 300 pixels"):
        shape([Image.new("RGB", (1, 300))])


def saved(path: Path) -> Path:
    """Save a picture whose EXIF data says that it is turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_a_file_a_picture_and_an_array_are_the_same_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png")
    image = Image.open(path)
    pixels = np.asarray(image)
    grey = pixels[..., 0]

    for given in (path, str(path), image, pixels, np.asfortranarray(pixels)):
        made = to_picture(given)
        assert (made.mode, made.size) == ("RGB", (8, 6)), "not turned"
        assert (np.asarray(made) == pixels).all()
    assert (np.asarray(to_picture(grey)) == grey[..., None]).all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            np.zeros((6, 8, 3), np.float32),
            r"an array of shape \(6, 8, 3\) and float32 is not a pict",
        ),
        (
            np.zeros((3, 6, 8), np.uint8),
            r"an array of shape \(3, 6, 8\) and uint8 is not a picture",
        ),
        (np.zeros((6, 8, 4), np.uint8), r"an array of shape \(6, 8, 4\) and uint8"),
        (np.zeros((1, 6, 8, 3), np.uint8), r"an array of shape \(1, 6, 8, 3\) and uint8"),
        (np.zeros(6, np.uint8), r"an array of shape \(6,\) and uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"an array of shape \(0, 8, 3\) and uint8"),
        (None, "NoneType is not a picture; pass a file's path, a PIL picture or a numpy array"),
        (b"bytes", "bytes is not a picture; pass a file's path"),
        (
            Image.new("F", (9, 9)),
            r"the picture can't be read \(its pixels are 32-bit floats, .*\)",
        ),
        (np.zeros((1, 900, 3), np.uint8), r"the picture can't be read \(it has 900 x 1 pixels; "),
    ],
)
def test_what_is_no_picture_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^{sentence}[^\n]*$"):
        to_picture(given)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "No such file or directory"),
        ("folder", "Is a directory"),
        ("text", "it is not a picture that PIL can read"),
        ("cut off", "image file is truncated.*"),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_file_that_is_no_picture_is_one_sentence(
    tmp_path: Path, kind: str, reason: str, as_text: bool
) -> None:
    path = tmp_path / "x.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "cut off":
        Image.effect_noise((90, 60), 50).save(path)
        path.write_bytes(path.read_bytes()[:900])

    sentence = rf"^picture {path} can't be read \({reason}\); replace it and try again$"
    with pytest.raises(ModelError, match=sentence):
        to_picture(str(path) if as_text else path)


def test_an_opened_file_that_is_cut_off_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.effect_noise((90, 60), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])

    with pytest.raises(ModelError, match=r"^the picture can't be read \(image file is truncated"):
        to_picture(Image.open(path))
