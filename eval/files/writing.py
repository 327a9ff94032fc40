"""Write files so that nothing is half there, and say in one sentence what can't be written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eval.errors import EvaluationError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, so that a reader or a crash never meets half of it."""
    encoded = content.encode() if isinstance(content, str) else content
    # No process of any machine has another file of this name.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one sentence."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{path} can't be written: {error.strerror}; what was written before is kept: "
            "make room or choose another place, and run the same command again"
        ) from error
