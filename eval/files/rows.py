"""Rows of a file that another tool wrote: JSON lines, one JSON value, CSV or TSV.

The readers of answers and captions interpret the keys of a row.
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
from models.json_files import json_fault, parse_json

DELIMITERS: Final = {".csv": ",;\t", ".tsv": "\t"}
OBJECT: Final = "JSON object"
ANNOTATIONS: Final = "annotations"
# An object with one of these keys is a row, even if it has lists.
ROW_KEYS: Final = ("image_id", "question_id", "id")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a file.

    Attributes:
        layout: The file's format in words, such as "JSON lines".
        rows: Each with its position in the file, such as "line 3".
    """

    layout: str
    rows: list[tuple[str, Record]]


def read_rows(path: Path) -> Rows:
    """Read the rows of a file, gzipped or not; a table's cells are text.

    A JSON object with one list of objects, such as {"results": [...]}, or with COCO's "annotations"
    is read as that list; any other object is one row.

    Raises:
        EvaluationError: If the file can't be read or is none of these.
    """
    text = read_text(path)
    suffix = table_suffix(path)
    if suffix is not None:
        return Rows(suffix[1:].upper(), list(_table(path, text, DELIMITERS[suffix])))
    value = one_value(path, text)
    if value is None:
        lines = read_json_lines(path)
        return Rows("JSON lines", [(f"line {number}", row) for number, row in lines])
    if isinstance(value, dict):
        name = _list_in(value)
        if name is None:
            return Rows(OBJECT, [("the object", value)])
        return Rows(f"JSON object, its {name!r}", _entries(path, value[name]))
    if not isinstance(value, list):
        raise EvaluationError(f"{path} contains {value!r:.40}; each row must be a JSON object")
    return Rows("JSON list", _entries(path, value))


def table_suffix(path: Path) -> str | None:
    """Return ".csv" or ".tsv" if a file's name has that suffix, gzipped or not; else None."""
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "").lower()
    return suffix if suffix in DELIMITERS else None


def _list_in(content: Record) -> str | None:
    """Return the key of the list of rows in an object; None if it is a row or a mapping."""
    if any(key in content for key in ROW_KEYS):
        return None
    # A number is an image id, and this list belongs to it.
    lists = [key for key, of in content.items() if _is_rows(of) and not key.isdecimal()]
    if ANNOTATIONS in lists:
        return ANNOTATIONS
    return lists[0] if len(lists) == 1 else None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _entries(path: Path, entries: list[Any]) -> list[tuple[str, Record]]:
    for number, row in enumerate(entries, start=1):
        if not isinstance(row, dict):
            raise EvaluationError(f"{path}, entry {number} is not a JSON object: {row!r:.60}")
    return [(f"entry {number}", row) for number, row in enumerate(entries, start=1)]


def one_value(path: Path, text: str) -> Any:
    """Return the content of a file that is one JSON value; None if it may be JSON lines.

    Raises:
        EvaluationError: If it is a JSON list that is cut off, or is nested too deeply.
    """
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[:1] == "[":
            raise EvaluationError(
                f"{path} is not complete JSON ({error.msg} at character {error.pos}); it may be "
                "cut off: write or copy it again"
            ) from error
        return None
    except ValueError as error:
        raise EvaluationError(
            f"{path} can't be read ({json_fault(error)}); is it the right file?"
        ) from error


def _table(path: Path, text: str, delimiters: str) -> Iterator[tuple[str, Record]]:
    """Yield the rows of a table whose first line names the columns."""
    header = text.split("\n", 1)[0]
    delimiter = max(delimiters, key=header.count)
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise EvaluationError(f"{path} has two columns with the same name: {', '.join(names)}")
        for row in reader:
            if None in row or None in row.values():
                raise EvaluationError(
                    f"{path}, line {reader.line_num} has another number of cells than the first "
                    f"line, which names {len(names)} columns; quote texts that contain a comma"
                )
            yield f"line {reader.line_num}", dict(row)
    except csv.Error as error:
        raise EvaluationError(f"{path}, line {reader.line_num} can't be read: {error}") from error
