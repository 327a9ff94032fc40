"""Text of files that others wrote, in any encoding that a mark or its first bytes name."""

from __future__ import annotations

from pathlib import Path

import pytest

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
