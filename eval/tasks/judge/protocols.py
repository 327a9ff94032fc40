"""The judge's protocols: the prompts, and how the grades in a reply are read.

"opera" is the paper's prompt, reworded, with the structure of OPERA's gpt4v_eval.py. "json" has the
same prompt with a schema. In the text mode, the judge gets the objects that COCO's annotators
marked instead of the picture.

A reply is readable if it has exactly two grades from 1 to 10 for each criterion; they may be
repeated if they are equal. Ambiguous replies are not read: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.json_files import parse_json

PROTOCOLS: Final = ("opera", "json")
MODES: Final = ("image", "text")
CRITERIA: Final = ("accuracy", "detailedness")
LOWEST, HIGHEST = 1, 10

_TASK = {
    "image": "Two assistants were asked to describe the image that comes with this message. Grade "
    "their descriptions.",
    "text": "Two assistants were asked to describe an image. You can't see it: what is known of it "
    "is listed below. Grade their descriptions by that list.",
}  # fmt: skip
_KNOWN = """
Objects that people marked in the image: {objects}.
They looked for these kinds of object and for no others: {kinds}. Of these kinds, one that is not \
marked is not in the image. About everything else the list says nothing; count it neither for nor \
against a description.
"""
_CRITERIA = """
Look above all for hallucination: whatever a description says that the image does not bear out, be \
it a thing that is not there, or a wrong number, place or colour of a thing that is.

Grade each description from 1 (worst) to 10 (best) by two criteria:
1. Accuracy: does all that the description says agree with the image? The more of it is \
hallucinated, the lower the grade.
2. Detailedness: does the description tell much of what there is to see? What it hallucinates is \
no detail and earns nothing.
"""
_RULES = {
    "opera": """
For each criterion write one line with nothing but two grades, first that of Assistant 1, then \
that of Assistant 2, with a space between them. Give your reason on the line below. Neither the \
order of the descriptions nor their length may sway you.
""",
    "json": """
Reply in JSON. For each criterion state your reason first, then the grade of Assistant 1 and that \
of Assistant 2. Neither the order of the descriptions nor their length may sway you.
""",
}
_ANSWERS = """
[Assistant 1]
{first}
[End of Assistant 1]

[Assistant 2]
{second}
[End of Assistant 2]
"""
_FORM = {
    "opera": """
Form of your reply:
Accuracy: <grade of Assistant 1> <grade of Assistant 2>
Reason: <your reason>

Detailedness: <grade of Assistant 1> <grade of Assistant 2>
Reason: <your reason>
""",
    "json": "",
}


def render(
    protocol: str,
    first: str,
    second: str,
    *,
    objects: Sequence[str] | None = None,
    kinds: Sequence[str] = (),
) -> str:
    """Return the text of a request.

    Args:
        protocol: "opera" or "json".
        first: The first answer.
        second: The second answer.
        objects: Objects in the picture, in the text mode; None if the picture itself is sent.
        kinds: Categories that the annotators looked for, in the text mode.
    """
    mode = "image" if objects is None else "text"
    known = ""
    if objects is not None:
        listed = ", ".join(sorted(objects)) or "none"
        known = _KNOWN.format(objects=listed, kinds=", ".join(sorted(kinds)))
    answers = _ANSWERS.format(first=first, second=second)
    return _TASK[mode] + "\n" + known + _CRITERIA + _RULES[protocol] + answers + _FORM[protocol]


def response_format(protocol: str) -> dict[str, Any] | None:
    """Return the JSON schema of a reply; None if the reply is free text."""
    if protocol != "json":
        return None
    # The reason comes before the grades, so that the model gives reasons before it grades.
    grade = {"type": "number"}
    criterion = _object(reason={"type": "string"}, assistant_1=grade, assistant_2=grade)
    schema = _object(**dict.fromkeys(CRITERIA, criterion))
    return {
        "type": "json_schema",
        "json_schema": {"name": "grades", "strict": True, "schema": schema},
    }


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties, as strict mode requires."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Grades:
    """Grades of both answers by criterion, in the order in which the answers were shown."""

    accuracy: Pair
    detailedness: Pair

    def swap_answers(self) -> Grades:
        """Return the grades with the two answers exchanged."""
        return Grades(self.accuracy[::-1], self.detailedness[::-1])


@dataclass(frozen=True, slots=True)
class Unparsed:
    """The reason why a reply can't be read."""

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
# "8/10" is one grade out of ten, and "8 -7" may contain a minus sign.
_BETWEEN: Final = r"(?:[ ]?[,;|&][ ]?| - |-| ?/(?!10)[ ]?|,? and | vs\.? | versus | )"
_AFTER: Final = r"(?:[ ]?[.,;|]?|(?:[.;:]|[ ]?[-\u2013\u2014(])[ ]?[A-Za-z].*)"
_PAIR: Final = re.compile(rf"{_GRADE}{_BETWEEN}{_GRADE}{_AFTER}", re.IGNORECASE)
_MARKS: Final = re.compile(r"[*_`#<>\[\]{}\"']")
_LONGEST: Final = 200  # Characters of a line that are read; grades are at its start.


def read_grades(text: str, protocol: str) -> Grades | Unparsed:
    """Read the grades of a reply, or return why it has none. Never raises.

    Args:
        text: The reply.
        protocol: The protocol of the request, "opera" or "json".
    """
    if not text.strip():
        return Unparsed("the reply is empty")
    found = {name: _FINDERS[protocol](text, name) for name in CRITERIA}
    for name, pair in found.items():
        if isinstance(pair, Unparsed):
            return Unparsed(f"{name}: {pair.reason}")
    return Grades(**found)  # type: ignore[arg-type]  # what is not a pair has returned


def _find_in_text(text: str, criterion: str) -> Pair | Unparsed:
    """Return the pair of grades after a criterion's labels, which must all agree."""
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
        return Unparsed(f"no two grades from {LOWEST} to {HIGHEST} after the label")
    return pairs.pop()


def _pair_of(text: str) -> Pair | None:
    """Return two grades from the first line with text, or from the first two lines together."""
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
    """Return two grades in the order of the assistants; None if numbers or names do not fit."""
    pair = (float(one), float(two))
    names = ({before_one, after_one} - {None}, {before_two, after_two} - {None})
    if not all(LOWEST <= grade <= HIGHEST for grade in pair):
        return None
    if names == ({"2"}, {"1"}):
        return pair[::-1]
    return pair if names[0] <= {"1"} and names[1] <= {"2"} else None


def _find_in_json(text: str, criterion: str) -> Pair | Unparsed:
    """Return a criterion's pair of grades in a JSON reply, which may be in a fenced block."""
    try:
        content = parse_json(_strip_fence(text))
    except ValueError:
        return Unparsed("the reply is not JSON")
    grades = content.get(criterion) if isinstance(content, dict) else None
    if not isinstance(grades, dict):
        return Unparsed("the JSON has no such object")
    one, two = (_grade(grades.get(f"assistant_{number}")) for number in (1, 2))
    if one is None or two is None:
        return Unparsed(f"no two grades from {LOWEST} to {HIGHEST} in the JSON")
    return one, two


def _strip_fence(text: str) -> str:
    """Return the content of a fenced block if it is the whole text; otherwise the text."""
    # A regular expression would take hours for a reply of empty lines.
    first, _, rest = text.strip().partition("\n")
    inner, _, last = rest.rpartition("\n")
    opens = first.strip().lower() in ("```", "```json")
    return inner if opens and last.strip() == "```" else text


def _grade(value: Any) -> float | None:
    usable = type(value) in (int, float) and LOWEST <= value <= HIGHEST
    return float(value) if usable else None


_FINDERS: Final = {"opera": _find_in_text, "json": _find_in_json}
