"""What a run records about the data it used."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.run.pixels import pictures_hash
from models import file_hashes


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
