"""What stops an evaluation: one sentence for the person who started it."""

from collections.abc import Sequence
from typing import Final

SHOWN_IDS: Final = 5


class EvaluationError(Exception):
    """Input, settings or a run folder that can't be used."""


def some_ids(ids: Sequence[int | str]) -> str:
    """Return the first few ids as text, for messages."""
    shown = ", ".join(map(str, ids[:SHOWN_IDS]))
    return f"{shown}, ..." if len(ids) > SHOWN_IDS else shown
