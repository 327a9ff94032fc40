"""Text of a file that somebody else wrote: gzipped or not, in UTF-8 or UTF-16, marked or not."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError
from models.lfs import POINTER_START

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
        raise EvaluationError(f"{path} can't be read: {error.strerror or error}") from error
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
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"{path} is not {encoding.upper().removesuffix('-SIG')} text; is it the right file?"
        ) from error
