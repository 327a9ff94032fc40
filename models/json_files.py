"""Read JSON from outside; errors are one sentence.

An object with a duplicate key is refused, as the intended value is unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from models.errors import ModelError

# The configs, tokenizers and indices of the largest models take some tens of megabytes.
MOST_BYTES: Final = 1 << 30


def parse_json(text: str | bytes) -> Any:
    """Return the value of a text of JSON, in UTF-8, UTF-16 or UTF-32 if it is bytes.

    Raises:
        json.JSONDecodeError: If it is none, with the place where it ends to be.
        ValueError: If it is not text, is nested too deep, has a number of thousands of digits, or
            an object with a key twice.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file of a model.

    Args:
        path: The file.
        what: What it is, such as "config", for error messages.
    Raises:
        ModelError: Naming the file, if it can't be read or contains no object.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{what} {path} is not a file; check the path")
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"{what} {path} has more than a gigabyte; is it the right file?")
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{what} {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(
            f"{what} {path} is damaged, it is not whole JSON ({json_fault(error)}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{what} {path} contains {type(content).__name__}, not a JSON object")
    return content


def json_fault(error: ValueError) -> str:
    """Return in words what is wrong with a text of JSON, and where."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not {error.encoding.upper()} text, from byte {error.start}"
    if "integer string conversion" in str(error):
        return "a number of thousands of digits"
    return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        doubled = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {doubled!r:.60} is duplicated in one object")
    return found
