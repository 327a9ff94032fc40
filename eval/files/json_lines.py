"""Read a file of one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.errors import EvaluationError


def read_json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSON-lines file with their line numbers; empty lines are skipped.

    Raises:
        EvaluationError: If the file can't be read or a line is not a JSON object.
    """
    rows = []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise EvaluationError(
                f"{path}, line {number} is not JSON ({error.msg}); one object a line is needed"
            ) from error
        if not isinstance(row, dict):
            raise EvaluationError(f"{path}, line {number} is not a JSON object: {line[:60]}")
        rows.append((number, row))
    return rows


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, stripped, with their numbers.

    Raises:
        EvaluationError: If the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8 text; is it the right file?") from error
    # Not splitlines(), which also splits at characters that a text in JSON may hold, as U+2028.
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
