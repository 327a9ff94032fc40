"""Text of files that others wrote, in any encoding that a mark or its first bytes name."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files import text
from eval.files.rows import read_rows
from eval.files.text import read_text


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x").write_text('{"a": "caf\u00e9 \u732b"}\n', encoding=encoding)
    assert read_text(tmp_path / "x") == '{"a": "caf\u00e9 \u732b"}\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_may_have_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "x.csv").write_text(f"id{delimiter}answer\r\n1{delimiter}Yes\r\n")
    assert [row for _, row in read_rows(tmp_path / "x.csv").rows] == [{"id": "1", "answer": "Yes"}]


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_is_bounded_also_once_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(text, "MOST_BYTES", 1000)
    path = tmp_path / "x"

    for count in (1000, 1001):
        path.write_bytes(gzip.compress(b"a" * count) if packed else b"a" * count)
        if count == 1000:
            assert read_text(path) == "a" * count
        else:
            with pytest.raises(EvaluationError, match="pass only the part that is needed"):
                read_text(path)


@pytest.mark.parametrize("name", [".", "/dev/zero", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(EvaluationError, match=r"is (a folder|not a regular file); pass a"):
        read_text(tmp_path / name)
