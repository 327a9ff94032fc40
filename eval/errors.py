"""What stops an evaluation: one sentence for the person who started it."""

from collections.abc import Sequence
from typing import Final

from models.errors import printable

SHOWN_IDS: Final = 5
SHOWN_END: Final = 600  # characters at each end of a sentence that is too long


class EvaluationError(Exception):
    """Input, settings or a run folder that can't be used."""


def some_ids(ids: Sequence[int | str]) -> str:
    """Return the first few ids as text, for messages."""
    shown = ", ".join(map(str, ids[:SHOWN_IDS]))
    return f"{shown}, ..." if len(ids) > SHOWN_IDS else shown


def shown(sentence: str) -> str:
    """Return a sentence for a terminal: on one line, in printable characters, of some lines.

    What it quotes from a file may be megabytes, or steer the terminal.
    """
    if len(sentence) > 2 * SHOWN_END:
        sentence = f"{sentence[:SHOWN_END]} [...] {sentence[-SHOWN_END:]}"
    return printable(" ".join(sentence.split()))
