"""How much of a benchmark is answered: a crashed run must not look like a whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

from eval.files.answers import Answer
from eval.output.table import WIDTH


class Coverage(NamedTuple):
    """Questions that are answered, of those that there are.

    Attributes:
        answered: By each arm.
        expected: What the published benchmark has; None where its editions differ.
        parts: Parts in which questions are answered.
        expected_parts: Parts that the benchmark has; None likewise.
    """

    answered: int
    expected: int | None
    parts: int
    expected_parts: int | None


def coverage(arms: Mapping[str, Sequence[Answer]], expected: Mapping[str, int]) -> Coverage:
    """Return how many questions are answered.

    Args:
        arms: Answers by arm, all to the same questions; those of repeats answer each several times.
        expected: Questions of the whole benchmark by part; empty if that is not known.
    """
    answers = next(iter(arms.values()), ())
    questions = {(answer.item.part, answer.item.id) for answer in answers}
    parts = len({part for part, _ in questions})
    return Coverage(len(questions), sum(expected.values()) or None, parts, len(expected) or None)


def coverage_note(found: Coverage, unknown: Mapping[str, float]) -> str:
    """Return how many questions are answered, and the share of unknown answers by arm.

    Args:
        found: The coverage.
        unknown: Share of answers that the parser can't read, by arm.
    """
    of = "" if found.expected is None else f" of {found.expected:,}"
    rates = ", ".join(f"{arm} {100 * rate:.2f} %" for arm, rate in unknown.items())
    among = ""
    if found.expected_parts is not None and found.parts < found.expected_parts:
        among = f", in {found.parts} of {found.expected_parts} parts"
    note = f"answered: {found.answered:,}{of} questions{among}; unknown answers: {rates}"
    return fill(note, WIDTH, subsequent_indent="  ", break_long_words=False)
