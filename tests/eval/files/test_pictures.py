"""Pictures that can't be read are one sentence; those in pages are small and as models saw them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from eval.errors import EvaluationError
from eval.files.pictures import (
    THUMBNAIL_SIZE,
    data_url,
    read_picture,
    thumbnail,
    unreadable_pictures,
)


def picture(path: Path, size: tuple[int, int] = (640, 480)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", size, (200, 10, 10)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("kind", ["no picture", "cut off", "broken png", "absent"])
def test_what_pil_refuses_is_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.png" if kind == "broken png" else "x.jpg")
    if kind == "no picture":
        path.write_bytes(b"no picture")
    elif kind != "absent":
        content = bytearray(picture(path).read_bytes())
        content[40:60] = b"\0" * 20
        path.write_bytes(content[: len(content) // 2])

    message = rf"^picture .*{path.name} can't be read .*replace it"
    with pytest.raises(EvaluationError, match=message):
        read_picture(path)


def test_half_a_bomb_is_read_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = picture(tmp_path / "x.png", (40, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    assert read_picture(path).size == (40, 30)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(EvaluationError, match=r"x\.png can't be read \(Image size .* exceeds"):
        read_picture(path)


def test_unreadable_pictures_are_listed_with_reasons(tmp_path: Path) -> None:
    picture(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid 0\n")
    Image.new("F", (9, 9)).save(tmp_path / "deep.tiff")

    found = unreadable_pictures(tmp_path, ["good.jpg", "bad.jpg", "pointer.jpg", "deep.tiff"])

    assert list(found) == ["bad.jpg", "pointer.jpg", "deep.tiff"]
    assert "Git LFS pointer" in found["pointer.jpg"]
    assert "32-bit floats" in found["deep.tiff"]


def test_a_deep_picture_in_a_page_is_scaled(tmp_path: Path) -> None:
    Image.new("I;16", (20, 10), 0x8000).save(tmp_path / "x.png")

    small = thumbnail(tmp_path, "x.png")

    image = Image.open(io.BytesIO(base64.b64decode(small.url.partition(",")[2])))
    assert image.getpixel((10, 5)) == (128, 128, 128)


def test_a_picture_in_a_page_is_small_and_not_turned(tmp_path: Path) -> None:
    small = thumbnail(tmp_path, picture(tmp_path / "x.jpg").name)

    image = Image.open(io.BytesIO(base64.b64decode(small.url.partition(",")[2])))
    assert small.url.startswith("data:image/jpeg;base64,")
    assert image.size == (small.width, small.height) == (THUMBNAIL_SIZE[0], 240)
    assert not image.getexif()
    assert not small.problem


def test_a_small_picture_keeps_its_size(tmp_path: Path) -> None:
    image = read_picture(picture(tmp_path / "x.jpg", (30, 20)))
    assert data_url(image, (100, 100), 75)[1:] == (30, 20)


def test_a_page_says_why_there_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")

    assert thumbnail(tmp_path, None).problem == f"no picture with this id in {tmp_path}"
    assert thumbnail(tmp_path, "bad.jpg").problem == "bad.jpg is not a picture"
    assert thumbnail(tmp_path, "absent.jpg").problem.startswith("absent.jpg can't be read: ")
