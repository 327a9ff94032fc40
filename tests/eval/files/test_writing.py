"""Files are replaced as a whole, and what can't be written is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.writing import write_atomically


@pytest.mark.parametrize(("content", "written"), [("ü\r\n", "ü\r\n".encode()), (b"\xff", b"\xff")])
def test_text_and_bytes_are_written_as_they_are(
    tmp_path: Path, content: str | bytes, written: bytes
) -> None:
    write_atomically(tmp_path / "new/folder/x", content)

    assert (tmp_path / "new/folder/x").read_bytes() == written


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(EvaluationError, match="No space left on device; what was written before"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.json"]


def test_a_place_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(EvaluationError, match=r"file/x can't be written: (Not a dir|File exists)"):
        write_atomically(tmp_path / "file/x", "new")
    with pytest.raises(EvaluationError, match="can't be written: Is a directory"):
        write_atomically(tmp_path, "new")

    assert (tmp_path / "file").read_text() == "mine"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
