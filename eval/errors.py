"""Errors that stop an evaluation, each with a one-sentence message for the user."""

from collections.abc import Sequence
from typing import Final

from models.errors import printable

SHOWN_IDS: Final = 5
SHOWN_END: Final = 600  # characters kept at each end of a message that is too long


class EvaluationError(Exception):
    """Input, settings or a run folder that can't be used."""


def some_ids(ids: Sequence[int | str]) -> str:
    """Return the first few ids as text, for messages."""
    shown = ", ".join(map(str, ids[:SHOWN_IDS]))
    return f"{shown}, ..." if len(ids) > SHOWN_IDS else shown


def to_one_line(sentence: str) -> str:
    """Return a message for a terminal: one line of printable characters, shortened if long.

    A message may quote megabytes of a file, or control characters.
    """
    if len(sentence) > 2 * SHOWN_END:
        sentence = f"{sentence[:SHOWN_END]} [...] {sentence[-SHOWN_END:]}"
    return printable(" ".join(sentence.split()))
