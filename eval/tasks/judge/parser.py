"""Read the grades in a judge's reply. What is not plain is not read: nothing is guessed.

A reply is readable if it gives two grades from 1 to 10 for each criterion, and only those, once or
several times alike. A line with a third number, or with one, says nothing for sure.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from eval.tasks.judge.prompts import CRITERIA, HIGHEST, LOWEST

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Grades:
    """Grades of both answers by each criterion, in the order in which the answers stood."""

    accuracy: Pair
    detailedness: Pair

    def swapped(self) -> Grades:
        """Return the grades with the answers the other way round."""
        return Grades(self.accuracy[::-1], self.detailedness[::-1])


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A reply that can't be read, and why."""

    reason: str


_LABEL: Final = re.compile(
    r"(?<![A-Za-z])(accuracy|detailedness)(?![A-Za-z])"
    r"(?:[ \t]*\(?(?:scores?|grades?|ratings?)(?![A-Za-z])\)?)?"
    r"(?:[ \t]*\(1[ \t]*(?:-|\u2013|to)[ \t]*10\))?[ \t]*(?:[:=|\u2013\u2014][ \t]*|-[ \t]+)?",
    re.IGNORECASE,
)
_REASON: Final = re.compile(r"(?<![A-Za-z])(?:reason|explanation|because)", re.IGNORECASE)
_NUMBER: Final = r"([0-9]{1,2}(?:\.[0-9]{1,3})?)(?![0-9])"
_OF_TEN: Final = r"(?:[ ]?(?:/|out of)[ ]?10(?!\.?[0-9]))?"
_NAME: Final = r"(?:the )?(?:assistant|answer|model|description|response)[ ]?#?([12])(?!\.?[0-9])"
_GRADE: Final = rf"(?:{_NAME}[ ]?[:=-]?[ ]?)?{_NUMBER}{_OF_TEN}(?:[ ]?\({_NAME}\))?"
# "8/10" is one grade of ten, and "8 -7" may hold a minus.
_BETWEEN: Final = r"(?:[ ]?[,;|&][ ]?| - |-| ?/(?!10)[ ]?|,? and | vs\.? | versus | )"
_AFTER: Final = r"(?:[ ]?[.,;|]?|(?:[.;:]|[ ]?[-\u2013\u2014(])[ ]?[A-Za-z].*)"
_PAIR: Final = re.compile(rf"{_GRADE}{_BETWEEN}{_GRADE}{_AFTER}", re.IGNORECASE)
_MARKS: Final = re.compile(r"[*_`#<>\[\]{}\"']")
_LONGEST: Final = 200  # Characters that are looked at; grades stand at the start of a line.


def read_grades(text: str, protocol: str) -> Grades | Unparsed:
    """Return the grades of a reply, or why it has none. Never raises.

    Args:
        text: The reply.
        protocol: What it was asked for in, "opera" or "json".
    """
    if not text.strip():
        return Unparsed("the reply is empty")
    found = {name: _FINDERS[protocol](text, name) for name in CRITERIA}
    for name, pair in found.items():
        if isinstance(pair, Unparsed):
            return Unparsed(f"{name}: {pair.reason}")
    return Grades(**found)  # type: ignore[arg-type]  # what is not a pair has returned


def _find_in_text(text: str, criterion: str) -> Pair | Unparsed:
    """Return the pair that a criterion's labels agree on."""
    plain = _MARKS.sub("", text)
    labels = list(_LABEL.finditer(plain))
    pairs = set()
    for at, label in enumerate(labels):
        if label[1].lower() != criterion:
            continue
        end = labels[at + 1].start() if at + 1 < len(labels) else len(plain)
        pair = _pair_of(plain[label.end() : end])
        if pair is not None:
            pairs.add(pair)
    if len(pairs) > 1:
        return Unparsed("different grades in different places")
    if not pairs:
        return Unparsed(f"no two grades from {LOWEST} to {HIGHEST} behind the label")
    return pairs.pop()


def _pair_of(text: str) -> Pair | None:
    """Return two grades of the first line with text in it, or of the first two together."""
    reason = _REASON.search(text)
    before = text[: reason.start()] if reason else text
    stripped = (line.strip(" \t|:").removeprefix("- ") for line in re.split(r"[\r\n]+", before))
    lines = [" ".join(line[:_LONGEST].split()) for line in stripped if line][:2]
    for candidate in (lines[:1], lines):
        match = _PAIR.fullmatch(", ".join(candidate))
        if match:
            return _in_order(*match.groups())
    return None


def _in_order(
    before_one: str | None, one: str, after_one: str | None,
    before_two: str | None, two: str, after_two: str | None,
) -> Pair | None:  # fmt: skip
    """Return two grades in the order of the assistants, if they are grades and names agree."""
    pair = (float(one), float(two))
    names = ({before_one, after_one} - {None}, {before_two, after_two} - {None})
    if not all(LOWEST <= grade <= HIGHEST for grade in pair):
        return None
    if names == ({"2"}, {"1"}):
        return pair[::-1]
    return pair if names[0] <= {"1"} and names[1] <= {"2"} else None


def _find_in_json(text: str, criterion: str) -> Pair | Unparsed:
    """Return a criterion's pair in a JSON reply, which may stand in a fenced block."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL | re.IGNORECASE)
    try:
        content = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return Unparsed("the reply is not JSON")
    grades = content.get(criterion) if isinstance(content, dict) else None
    if not isinstance(grades, dict):
        return Unparsed("the JSON has no such object")
    one, two = (_grade(grades.get(f"assistant_{number}")) for number in (1, 2))
    if one is None or two is None:
        return Unparsed(f"no two grades from {LOWEST} to {HIGHEST} in the JSON")
    return one, two


def _grade(value: Any) -> float | None:
    usable = type(value) in (int, float) and LOWEST <= value <= HIGHEST
    return float(value) if usable else None


_FINDERS: Final = {"opera": _find_in_text, "json": _find_in_json}
