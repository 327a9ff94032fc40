"""Turn what libraries raise about a checkpoint's files into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from models.errors import ModelError, printable

LONGEST: Final = 300  # characters of a reason or a name that are shown
# Raised by libraries in Rust for unexpected input; it does not derive from Exception.
PANIC: Final = "PanicException"
# Of torch, which takes seconds to load, and which many that come here do without.
NO_MEMORY: Final = "OutOfMemoryError"


@contextmanager
def library_errors(where: str, advice: str) -> Iterator[None]:
    """Turn whatever a library raises about a user's files into one sentence.

    There is no list of it: configs of transformers raise their validators' own kinds and what their
    arithmetic does with a wrong type, torch's unpickler KeyError and IndexError, tokenizers a bare
    Exception or a panic. So the block must contain only the library's call.

    Args:
        where: What can't be used, as "model.bin can't be read".
        advice: What to do.
    Raises:
        ModelError: In place of all but itself and what a lack of a GPU's memory raises.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if type(error).__name__ == NO_MEMORY:
            raise
        raise ModelError(f"{where} ({reason(error)}); {advice}") from error
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise ModelError(f"{where} ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """Return why something failed, in one line; the error's kind where its text says nothing."""
    text = one_line(error)
    kind = type(error).__name__
    return f"{kind}: {text}" if text and isinstance(error, LookupError) else text or kind


def one_line(text: object, longest: int = LONGEST) -> str:
    """Return text that a file or a library gave, cut and in one line, as a terminal can show it."""
    words = " ".join(str(text).split())
    shown = printable(words[:longest])
    return shown if len(words) <= longest else f"{shown}..."
