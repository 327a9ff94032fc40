"""Report answers that the papers' parsers read differently, so that the choice matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Final, NamedTuple

from eval.files.answers import Answer
from eval.output.table import WIDTH
from eval.tasks.yes_no.parsers import PARSERS

WORTH_A_NOTE: Final = 0.01  # share of an arm's answers
SHOWN: Final = 40  # characters of an example
# Parsers of whole sentences; the others only read the first characters or single words.
COMPARED: Final = ("opera", "pope", "strict", "substring")


class Disagreement(NamedTuple):
    """How differently parsers read an arm's answers.

    Attributes:
        share: Share of the answers that parsers read differently.
        answers: Number of answers.
        empty: Number of answers without any text.
        example: The most frequent answer that is read differently; None if there is none.
        read_as: Result of each parser for the example; None for unknown.
    """

    share: float
    answers: int
    empty: int
    example: str | None
    read_as: dict[str, str | None]


def disagreements(arms: Mapping[str, Sequence[Answer]], parser: str) -> dict[str, Disagreement]:
    """Compare the parsers on the answers of each arm.

    Args:
        arms: Answers by arm.
        parser: The parser in use, which is always compared, unless answers are not parsed.
    """
    names = dict.fromkeys([*COMPARED, *([parser] if parser in PARSERS else [])])
    return {arm: _disagreement(answers, list(names)) for arm, answers in arms.items()}


def disagreement_notes(found: Mapping[str, Disagreement], parser: str) -> list[str]:
    """Return a line for each arm in which parsers disagree on more than 1 % of the answers."""
    lines = []
    for arm, one in found.items():
        if one.empty:
            lines.append(f"{arm}: {one.empty} of {one.answers} answers are empty")
        if one.share > WORTH_A_NOTE:
            assert one.example is not None
            more = "..." if len(one.example) > SHOWN else ""
            lines.append(
                f"{arm}: the parsers disagree on {100 * one.share:.1f} % of {one.answers} answers: "
                f"{one.example[:SHOWN] + more!r} is {_in_words(one.read_as)}"
            )
    if any(one.share > WORTH_A_NOTE for one in found.values()):
        lines.append(
            f"the numbers above use parser {parser}; --parser NAME selects another, and the JSON "
            "file has the numbers of all: report several, or ask for one-word answers (--protocol "
            "official, or chat-short with --model hf)"
        )
    wrapped = [fill(line, WIDTH, subsequent_indent="  ", break_long_words=False) for line in lines]
    return ["\n".join(wrapped)] if wrapped else []


def _disagreement(answers: Sequence[Answer], parsers: Sequence[str]) -> Disagreement:
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.text] = counts.get(answer.text, 0) + 1
    read = {text: {name: PARSERS[name](text) for name in parsers} for text in counts}
    differ = [text for text, said in read.items() if len(set(said.values())) > 1]
    example = max(differ, key=lambda text: (bool(text.strip()), counts[text]), default=None)
    return Disagreement(
        sum(counts[text] for text in differ) / max(len(answers), 1),
        len(answers),
        sum(count for text, count in counts.items() if not text.strip()),
        example,
        {} if example is None else read[example],
    )


def _in_words(read_as: Mapping[str, str | None]) -> str:
    """Return the results grouped by parser: yes for opera and pope, no for strict."""
    groups: dict[str, list[str]] = {}
    for name, said in read_as.items():
        groups.setdefault(said or "unknown", []).append(name)
    return ", ".join(f"{said} for {' and '.join(names)}" for said, names in groups.items())
