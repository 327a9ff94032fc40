"""Text of any file, gzipped or not, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

Files are read once, up to a size limit.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError
from models.sources import POINTER_START

# Three times the size of COCO's largest annotation file.
MOST_BYTES: Final = 1 << 30
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
# Without a mark: whether the first two bytes are zero; ASCII in UTF-16 has one zero byte.
ZEROS: Final = {(True, False): "utf-16-be", (False, True): "utf-16-le"}


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked if it is gzipped.

    Raises:
        EvaluationError: If it can't be read, is not a regular file, or exceeds `MOST_BYTES`.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe can't be read twice, a device never ends
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise EvaluationError(
                f"{path} is {kind}; pass a regular file, such as a copy of its content"
            )
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if content.startswith(GZIP):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(MOST_BYTES + 1)
    except OSError as error:
        raise EvaluationError(
            f"{path} can't be read: {error.strerror or error}; check the path"
        ) from error
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise EvaluationError(f"{str(path)!r:.200} is not a valid file name; check it") from error
    except (EOFError, zlib.error) as error:
        raise EvaluationError(
            f"{path} is gzipped and cut off or damaged ({error}); copy it again"
        ) from error
    if len(content) > MOST_BYTES:
        raise EvaluationError(
            f"{path} has more than {MOST_BYTES >> 30} GiB of text; pass only the part that is "
            "needed"
        )
    return content


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark.

    Raises:
        EvaluationError: If the file can't be read, or is not text.
    """
    content = read_bytes(path)
    if content.startswith(POINTER_START):
        raise EvaluationError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder, "
            "then the same command again"
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
