"""How much of a benchmark is answered, so that a crashed run does not look like a complete one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

from eval.files.answers import Answer
from eval.output.table import WIDTH


class Coverage(NamedTuple):
    """Number of answered questions, and of questions in the benchmark.

    Attributes:
        answered: Questions that each arm answered.
        expected: Questions of the published benchmark; None if its editions differ.
        parts: Parts with answers.
        expected_parts: Parts of the benchmark; None if its editions differ.
    """

    answered: int
    expected: int | None
    parts: int
    expected_parts: int | None


def coverage(arms: Mapping[str, Sequence[Answer]], expected: Mapping[str, int]) -> Coverage:
    """Count the answered questions.

    Args:
        arms: Answers by arm, all to the same questions; those of repeats answer each several times.
        expected: Questions of the whole benchmark by part; empty if that is not known.
    """
    answers = next(iter(arms.values()), ())
    questions = {(answer.item.part, answer.item.id) for answer in answers}
    parts = len({part for part, _ in questions})
    return Coverage(len(questions), sum(expected.values()) or None, parts, len(expected) or None)


def coverage_note(found: Coverage, unknown: Mapping[str, float]) -> str:
    """Return a note on the coverage and on the share of unknown answers by arm.

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
