"""Any file named like a picture is a picture or one sentence, in little time and memory."""

from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from models.errors import ModelError
from models.pictures import FORMATS, MAX_BYTES, MAX_SIDE, read_picture

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8))


def written(kind: str, image: Image.Image = NOISE, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def valid_files() -> list[bytes]:
    """Return files of all formats that PIL writes here, in several modes and compressions."""
    found = []
    Image.init()
    for kind in sorted({*Image.SAVE} - {"PDF", "IM"}):
        for mode in ("RGB", "L", "P", "CMYK", "1"):
            for options in ({}, {"compression": "tiff_lzw"}, {"save_all": True}):
                with suppress(OSError, ValueError, KeyError, AttributeError):
                    found.append(written(kind, NOISE.convert(mode), **options))
    return list(dict.fromkeys(found))


FILES = valid_files()


def read(path: Path, content: bytes) -> Image.Image | str:
    """Return the picture in a file, or what is said of it."""
    path.write_bytes(content)
    try:
        return read_picture(path)
    except ModelError as error:
        sentence = str(error)
        assert sentence.startswith(f"picture {path} ")
        assert "\n" not in sentence
        assert len(sentence) < 500
        return sentence


def changed(content: bytes, rng: random.Random) -> bytes:
    """Cut a file off, or change a few of its bytes, mostly in its header."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    found = bytearray(content)
    for _ in range(rng.choice((1, 2, 4, 16))):
        at = rng.randrange(min(len(found), 400) if rng.random() < 0.7 else len(found))
        found[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(found)


def test_damaged_files_of_every_format_are_one_sentence_or_a_picture(tmp_path: Path) -> None:
    rng = random.Random(19)
    made = [read(tmp_path / "x.png", changed(rng.choice(FILES), rng)) for _ in range(1000)]

    said = [one for one in made if isinstance(one, str)]
    assert 300 < len(said) < 950
    assert {one.mode for one in made if isinstance(one, Image.Image)} == {"RGB"}


@settings(max_examples=100, deadline=None)
@given(start=st.sampled_from([content[:12] for content in FILES]), rest=st.binary(max_size=300))
def test_any_bytes_after_the_start_of_a_picture_are(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
) -> None:
    read(tmp_path_factory.getbasetemp() / "x.png", start + rest)


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in ("PSD", "DIB")])
def test_common_formats_are_read(tmp_path: Path, kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    image = NOISE.resize((16, 16)) if kind in ("ICO", "ICNS") else NOISE

    assert isinstance(read(tmp_path / "x", written(kind, image)), Image.Image)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "MSP", "SPIDER"])
def test_other_formats_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def start(*_: object, **__: object) -> None:
        pytest.fail("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    image = NOISE.convert({"MSP": "1", "SPIDER": "F"}.get(kind, "RGB"))

    said = read(tmp_path / "x.jpg", written(kind, image))

    assert isinstance(said, str)
    assert ("it is PostScript" if kind == "EPS" else "is not a picture that PIL can read") in said


def chunk(kind: bytes, content: bytes) -> bytes:
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Return a PNG without a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])


@pytest.mark.parametrize(
    "size", [(MAX_SIDE + 1, MAX_SIDE), (20_000, 20_000), (1, 2_000_000_000), (5, 1001), (2**31, 1)]
)
def test_large_pictures_and_strips_are_refused_by_their_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    said = read(tmp_path / "x.png", png(*size))

    assert f"(it has {size[0]} x {size[1]} pixels; sides may be up to" in str(said)


def test_the_largest_picture_is_not_refused_for_its_size(tmp_path: Path) -> None:
    assert "(cannot load this image)" in str(read(tmp_path / "x.png", png(MAX_SIDE, MAX_SIDE)))


def test_an_icon_is_measured_by_what_it_holds(tmp_path: Path) -> None:
    """Its list says 16 x 16."""
    strip = written("PNG", Image.new("RGB", (4, 900)))
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(strip), 22)

    said = read(tmp_path / "x.ico", struct.pack("<HHH", 0, 1, 1) + entry + strip)

    assert "it has 4 x 900 pixels" in str(said)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_a_chunk_that_unpacks_to_gigabytes_is_no_memory(tmp_path: Path, kind: str) -> None:
    packed = zlib.compress(bytes(200 << 20), 1)
    start = {"zTXt": b"k\0\0", "iTXt": b"k\0\1\0\0\0", "iCCP": b"k\0\0"}[kind]
    whole = written("PNG")  # its header ends after 33 bytes
    content = whole[:33] + chunk(kind.encode(), start + packed) + whole[33:]
    tracemalloc.start()

    said = read(tmp_path / "x.png", content)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "Decompressed data too large" in str(said)
    assert peak < 32 << 20


def test_a_tiff_of_millions_of_strips_is_refused_before_they_are_objects(tmp_path: Path) -> None:
    strips = b"\x08\0" * (3 << 20)
    tags = [(256, 100), (257, 100), (258, 8), (259, 1), (262, 1), (278, 1)]
    lists = [(273, 3 << 20, 8), (279, 3 << 20, 8)]
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags]
    entries += [struct.pack("<HHII", tag, 3, count, at) for tag, count, at in lists]
    start = b"II*\0" + struct.pack("<I", 8 + len(strips)) + strips

    end = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)

    said = read(tmp_path / "x.tif", start + end)

    assert "its header has more than 4,194,304 bytes, which is the limit; save it as a .png" in str(
        said
    )


def test_a_file_of_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.webp"
    path.write_bytes(written("WEBP"))
    os.truncate(path, MAX_BYTES + 1)  # sparse

    with pytest.raises(ModelError, match=r"\(it has 536,870,913 bytes; the limit is 536,870,912\)"):
        read_picture(path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "it is a pipe or a device, not a file"),
        ("device", "it is a pipe or a device, not a file"),
        ("folder", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("empty", "it is empty"),
        ("long", "File name too long"),
        ("nul", "embedded null byte"),
        ("surrogate", "'utf-8' codec can't encode.*"),
    ],
)
def test_what_is_named_like_a_picture_and_is_none(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "x.jpg"
    names = {"long": "x" * 300 + ".jpg", "nul": "x\0.jpg", "surrogate": "\ud800.jpg"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "empty":
        path.touch()
    else:
        path = tmp_path / names[kind]

    with pytest.raises(ModelError, match=rf"can't be read \({reason}\); replace it and try again"):
        read_picture(path)


def test_a_name_does_not_break_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_picture(tmp_path / "a\nb\x1b[31m\udcff.jpg")

    assert r"a\nb\x1b[31m\udcff.jpg can't be read (No such file" in str(error.value)
