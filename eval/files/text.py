"""Text of a file that somebody else wrote: gzipped or not, in UTF-8 or UTF-16, marked or not."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from models.sources import POINTER_START

GZIP: Final = b"\x1f\x8b"
ZIP: Final = b"PK\x03\x04"
# Longer marks first: UTF-16's little-endian mark is the start of UTF-32's.
MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Without a mark: whether the first two bytes are zero, as one is of an ASCII character in UTF-16.
ZEROS: Final = {(True, False): "utf-16-be", (False, True): "utf-16-le"}


def read_text(path: Path) -> str:
    """Return the text of a file; a byte order mark is left out.

    Raises:
        EvaluationError: If the file can't be read, or is not text.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except OSError as error:
        raise EvaluationError(
            f"{path} can't be read: {error.strerror or error}; check the path"
        ) from error
    except (EOFError, zlib.error) as error:
        raise EvaluationError(
            f"{path} is gzipped and cut off or damaged ({error}); copy it again"
        ) from error
    if content.startswith(POINTER_START):
        raise EvaluationError(
            f"{path} is a Git LFS pointer, not the file that it stands for; run `git lfs pull` in "
            "that folder and then the same command again"
        )
    if content.startswith(ZIP):
        raise EvaluationError(
            f"{path} is a spreadsheet (.xlsx) or another zip archive; export it as .csv or .jsonl "
            "and pass that file"
        )
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), None)
    if encoding is None:
        encoding = ZEROS.get((content[:1] == b"\0", content[1:2] == b"\0"), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"{path} is not {encoding.upper().removesuffix('-SIG')} text; is it the right file?"
        ) from error


def parse_json(text: str | bytes) -> Any:
    """Return the value of a text of JSON.

    Raises:
        ValueError: If it is none, is nested too deep, or has an object with a key twice, of which
            nobody can tell which one counts.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {doubled!r:.60} stands twice in one object")
    return found
