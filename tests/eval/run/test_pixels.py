"""What a run records about the data it used."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from eval.errors import EvaluationError
from eval.run.pixels import pictures_hash, read_ahead
from models import file_hashes
from models.errors import ModelError
from models.images import Preprocessing


def test_the_hash_of_pictures_follows_names_and_every_byte(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    before = pictures_hash(tmp_path, ["b.jpg", "a.jpg", "b.jpg"])
    assert pictures_hash(tmp_path, ["a.jpg", "b.jpg"]) == before

    (tmp_path / "c.jpg").write_bytes((tmp_path / "b.jpg").read_bytes())
    assert pictures_hash(tmp_path, ["a.jpg", "c.jpg"]) != before

    (tmp_path / "c.jpg").write_bytes(b"not asked about")
    assert pictures_hash(tmp_path, ["a.jpg", "b.jpg"]) == before

    content = bytearray((tmp_path / "b.jpg").read_bytes())
    content[2500] ^= 1
    (tmp_path / "b.jpg").write_bytes(content)
    assert pictures_hash(tmp_path, ["a.jpg", "b.jpg"]) != before


def test_swapped_pictures_of_one_size_change_the_hash(tmp_path: Path) -> None:
    one, two = tmp_path / "1.jpg", tmp_path / "2.jpg"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    before = pictures_hash(tmp_path, ["1.jpg", "2.jpg"])

    one.write_bytes(b"two")
    two.write_bytes(b"one")

    assert pictures_hash(tmp_path, ["1.jpg", "2.jpg"]) != before


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        pictures_hash(tmp_path, ["absent.jpg"])


@pytest.mark.parametrize("layout", ["plain", "link", "linked folder", "hard link"])
@pytest.mark.parametrize("way", ["in place", "another file"])
def test_a_picture_of_equal_size_and_time_changes_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, way: str
) -> None:
    later = SimpleNamespace(time_ns=lambda: 1 << 62)  # so that hashes are kept
    monkeypatch.setattr(file_hashes, "time", later)
    store, folder = tmp_path / "store", tmp_path / "folder"
    store.mkdir()
    picture = store / "1.jpg"
    picture.write_bytes(b"one")
    if layout == "linked folder":
        folder.symlink_to(store)
    else:
        folder.mkdir()
        make = {"plain": picture.rename, "link": None, "hard link": None}[layout]
        if make is not None:
            picture = make(folder / "1.jpg")
        elif layout == "link":
            (folder / "1.jpg").symlink_to(picture)
        else:
            os.link(picture, folder / "1.jpg")
    state, before = picture.stat(), pictures_hash(folder, ["1.jpg"])
    assert pictures_hash(folder, ["1.jpg"]) == before

    written = picture if way == "in place" else picture.with_name("new")
    written.write_bytes(b"two")
    os.utime(written, ns=(state.st_atime_ns, state.st_mtime_ns))
    written.replace(picture)

    is_own = layout == "hard link" and way == "another file"  # the folder's has its old bytes
    assert (pictures_hash(folder, ["1.jpg"]) == before) is is_own


def test_names_that_are_no_text_are_hashed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        (tmp_path / name).write_bytes(b"one")
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    before = pictures_hash(tmp_path, [name])

    (tmp_path / name).write_bytes(b"two")

    assert pictures_hash(tmp_path, [name]) != before


def test_a_reading_process_that_was_ended_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")

    class Killing(Narrow):
        def prepare(self, image: Image.Image, questions: Sequence[str]) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory is short

    asked = {"good.png": ["Is it?"]}
    pixels = read_ahead([["good.png"]], tmp_path, Killing(), asked, workers=1, pinned=False)
    with pytest.raises(EvaluationError, match=r"was killed, perhaps for lack of memory; .* kept"):
        list(pixels)


class Narrow(Preprocessing):
    """Takes no strips and no question with a tag, as processors of transformers do."""

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        if min(images[0].size) < 10:
            raise ModelError("no picture of (5, 1000)")
        return torch.zeros(1)

    def prepare(self, image: Image.Image, questions: Sequence[str]) -> Any:
        if "<tag>" in questions[0]:
            raise ModelError("the text holds '<tag>'; leave it out")
        return self([image])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_advice_is_for_what_is_wrong(tmp_path: Path, workers: int) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    Image.new("RGB", (5, 1000)).save(tmp_path / "strip.png")
    (tmp_path / "broken.png").write_bytes(b"GIF89a")

    def said(name: str, question: str = "Is it?") -> str:
        questions = {name: [question]}
        pixels = read_ahead([[name]], tmp_path, Narrow(), questions, workers=workers, pinned=False)
        with pytest.raises(EvaluationError) as error:
            list(pixels)
        return str(error.value)

    broken, strip, tag = said("broken.png"), said("strip.png"), said("good.png", "<tag>")
    assert "broken.png can't be read (" in broken
    assert broken.endswith("leaves such pictures out")
    assert strip == (
        f"{tmp_path / 'strip.png'}: no picture of (5, 1000); the model's processor does not accept this "
        "picture: leave it out of the folder or list"
    )
    assert tag == f"{tmp_path / 'good.png'}: the text holds '<tag>'; leave it out"
