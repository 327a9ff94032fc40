"""Rows of a file that another tool wrote: JSON lines, one JSON value, CSV or TSV.

What the keys of a row mean is for the reader of answers or captions to say.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import Record, read_json_lines
from eval.files.text import read_text

DELIMITERS: Final = {".csv": ",;", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a file.

    Attributes:
        layout: What the file is, in words, such as "JSON lines".
        rows: Each with the place where it stands, such as "line 3".
    """

    layout: str
    rows: list[tuple[str, Record]]


def read_rows(path: Path) -> Rows:
    """Read the rows of a file, gzipped or not; a table's cells are text.

    A JSON object that holds one list of objects, as {"results": [...]}, stands for that list; any
    other object is one row.

    Raises:
        EvaluationError: If the file can't be read or is none of these.
    """
    text = read_text(path)
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "").lower()
    if suffix in DELIMITERS:
        return Rows(suffix[1:].upper(), list(_table(path, text, DELIMITERS[suffix])))
    value = _one_value(path, text)
    if value is None:
        lines = read_json_lines(path)
        return Rows("JSON lines", [(f"line {number}", row) for number, row in lines])
    if isinstance(value, dict):
        lists = [(key, of) for key, of in value.items() if _is_rows(of)]
        if len(lists) != 1:
            return Rows("JSON object", [("the object", value)])
        key, entries = lists[0]
        return Rows(f"JSON object, its {key!r}", _entries(path, entries))
    if not isinstance(value, list):
        raise EvaluationError(f"{path} holds {value!r:.40}; rows are needed, a JSON object each")
    return Rows("JSON list", _entries(path, value))


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _entries(path: Path, entries: list[Any]) -> list[tuple[str, Record]]:
    for number, row in enumerate(entries, start=1):
        if not isinstance(row, dict):
            raise EvaluationError(f"{path}, entry {number} is not a JSON object: {row!r:.60}")
    return [(f"entry {number}", row) for number, row in enumerate(entries, start=1)]


def _one_value(path: Path, text: str) -> Any:
    """Return the content of a file that is one JSON value; None if it may be JSON lines."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[:1] == "[":
            raise EvaluationError(
                f"{path} is not whole JSON ({error.msg} at character {error.pos}); it may have "
                "been cut off, write or copy it again"
            ) from error
        return None
    except RecursionError as error:
        raise EvaluationError(f"{path} is nested too deep; is it the right file?") from error
    except ValueError as error:  # a number of thousands of digits
        raise EvaluationError(f"{path} can't be read ({error}); is it the right file?") from error


def _table(path: Path, text: str, delimiters: str) -> Iterator[tuple[str, Record]]:
    """Yield the rows of a table whose first line names the columns."""
    header = text.split("\n", 1)[0]
    delimiter = max(delimiters, key=header.count)
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise EvaluationError(f"{path} has two columns of one name: {', '.join(names)}")
        for row in reader:
            if None in row or None in row.values():
                raise EvaluationError(
                    f"{path}, line {reader.line_num} has not as many cells as the first line, "
                    f"which names {len(names)} columns; a text with a comma needs quotes around it"
                )
            yield f"line {reader.line_num}", dict(row)
    except csv.Error as error:
        raise EvaluationError(f"{path}, line {reader.line_num} can't be read: {error}") from error
