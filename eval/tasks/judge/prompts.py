"""What the judge is asked, as protocols: the paper's prompt in our words, and one with a schema.

The structure is that of OPERA's gpt4v_eval.py: the task with its definition of hallucination, two
criteria from 1 to 10, both answers between marks, the form of the reply. The words are ours. In the
text mode the judge sees no picture, but the objects that COCO's annotators marked in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
        first: Answer that stands first.
        second: Answer that stands second.
        objects: What is in the picture, in the text mode; None where the picture itself is sent.
        kinds: What the annotators looked for, in the text mode.
    """
    mode = "image" if objects is None else "text"
    known = ""
    if objects is not None:
        listed = ", ".join(sorted(objects)) or "none"
        known = _KNOWN.format(objects=listed, kinds=", ".join(sorted(kinds)))
    answers = _ANSWERS.format(first=first, second=second)
    return _TASK[mode] + "\n" + known + _CRITERIA + _RULES[protocol] + answers + _FORM[protocol]


def response_format(protocol: str) -> dict[str, Any] | None:
    """Return the schema that the endpoint holds a reply to; None where the reply is free text."""
    if protocol != "json":
        return None
    # The reason stands before the grades, so that a model that writes in order thinks first.
    criterion = _object(
        {
            "reason": {"type": "string"},
            "assistant_1": {"type": "number"},
            "assistant_2": {"type": "number"},
        }
    )
    schema = _object(dict.fromkeys(CRITERIA, criterion))
    return {
        "type": "json_schema",
        "json_schema": {"name": "grades", "strict": True, "schema": schema},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties, as strict schemas need it."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
