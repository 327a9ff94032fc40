"""What a run records about the data it used."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.run.pixels import pictures_hash


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
