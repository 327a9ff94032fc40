"""Read lists of image ids: plain text, JSON, a table, or any captions file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.image_ids import ImageId, image_id_of
from eval.files.rows import DELIMITERS, one_value, table_suffix
from eval.files.storage import read_lines
from eval.files.text import read_text
from eval.tasks.chair.caption_rows import caption_rows

COLUMN: Final = "image_id"


def read_ids(path: Path) -> list[ImageId]:
    """Return the image ids of a file, in its order.

    The file has one id or picture name per line, a JSON list of them, or rows with `image_id` like
    any captions file. Rows may repeat an id (for several methods); it counts once.

    Raises:
        EvaluationError: If there is no id, an entry is not an id, or a plain list repeats one.
    """
    lines = [(f"line {number}", line) for number, line in read_lines(path)]
    if not lines:
        raise EvaluationError(f"{path} has no image ids; write one id per line")
    header = lines[0][1]
    if _is_table(path, header):
        return _ids_of_rows(path)
    if header.lower() == COLUMN:
        return _ids_of_list(path, lines[1:])
    if header[0] in "[{":
        value = one_value(path, read_text(path))
        if isinstance(value, list) and not any(isinstance(one, dict) for one in value):
            entries = enumerate(value, start=1)
            return _ids_of_list(path, [(f"entry {number}", one) for number, one in entries])
        return _ids_of_rows(path)
    return _ids_of_list(path, lines)


def _is_table(path: Path, header: str) -> bool:
    """Return whether a file is a table with named columns, and not a list of one id per line."""
    suffix = table_suffix(path)
    if suffix is None:
        return False
    several = any(delimiter in header for delimiter in DELIMITERS[suffix])
    return several or header.strip('"').lower() == COLUMN


def _ids_of_list(path: Path, entries: Sequence[tuple[str, Any]]) -> list[ImageId]:
    found: dict[ImageId, str] = {}
    for place, value in entries:
        image_id = image_id_of(value)
        if image_id is None or str(value).startswith("{"):  # a row among plain lines
            raise EvaluationError(
                f"{path}, {place}: {value!r:.60} is not an image id; an id is a number (226988), "
                "or a picture's name (COCO_val2014_000000226988.jpg)"
            )
        if image_id in found:
            raise EvaluationError(
                f"{path}, {place}: image id {image_id} is already in {found[image_id]}; name each "
                "picture once"
            )
        found[image_id] = place
    if not found:
        raise EvaluationError(f"{path} has no image ids; name at least one picture")
    return list(found)


def _ids_of_rows(path: Path) -> list[ImageId]:
    rows = caption_rows(path, image_id_key=COLUMN, caption_key="caption")
    if not rows:
        raise EvaluationError(f"{path} has no image ids; name at least one picture")
    ids = [_id_of_row(row, f"{path}, {place}") for place, row in rows]
    found = list(dict.fromkeys(ids))
    if len(found) < len(ids) and not any("method" in row for _, row in rows):
        print(f"note: {len(ids) - len(found)} of {len(ids)} rows of {path} repeat an image id; "
              "each id counts once", file=sys.stderr)  # fmt: skip
    return found


def _id_of_row(row: Mapping[str, Any], where: str) -> ImageId:
    # In an arm's answers.jsonl, `id` is the question id, which is the image id in a captioning run.
    image_id = image_id_of(row["id"] if {"id", "answer"} <= row.keys() else row.get(COLUMN))
    if image_id is None:
        raise EvaluationError(
            f"{where}: {COLUMN!r} is {row.get(COLUMN)!r:.60}, which is not an image id; add one "
            f"(the keys of the row are {', '.join(sorted(row))})"
        )
    return image_id
