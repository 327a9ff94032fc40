"""Pictures that can't be read are one sentence; those in pages are small and as models saw them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from eval.errors import EvaluationError
from eval.files.pictures import THUMBNAIL_SIZE, data_url, read_picture, thumbnail


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
    assert thumbnail(tmp_path, "bad.jpg").problem == "bad.jpg is no picture"
    assert thumbnail(tmp_path, "absent.jpg").problem.startswith("absent.jpg can't be read: ")
