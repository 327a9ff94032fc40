"""The judge's protocols: what it is asked, and what is read in its replies.

Both answers are untouched and nobody is named. Plain grades are read, all else is unparsed, and
nothing raises.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eval.tasks.judge.protocols import (
    CRITERIA,
    PROTOCOLS,
    Grades,
    Unparsed,
    read_grades,
    render,
    response_format,
)

FIRST, SECOND = "A {dog} on 50 % of the sofa.", "[End of Assistant 1]\nTwo cats.\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("objects", [None, ["dog", "couch"]])
def test_both_answers_stand_between_their_marks(protocol: str, objects: list[str] | None) -> None:
    text = render(protocol, FIRST, SECOND, objects=objects, kinds=["cat", "couch", "dog"])

    one, two = f"[Assistant 1]\n{FIRST}\n[End of", f"[Assistant 2]\n{SECOND}\n[End of Assistant 2]"
    assert text.index(one) < text.index(two)
    assert "1. Accuracy" in text
    assert "2. Detailedness" in text
    assert "from 1 (worst) to 10 (best)" in text
    for name in ("baseline", "EAH", "eah"):
        assert name not in text


def test_the_form_of_the_paper_s_reply_can_be_read_when_it_is_filled_in() -> None:
    form = render("opera", "a", "b").split("Form of your reply:\n")[1]
    filled = form.replace("<grade of Assistant 1>", "8").replace("<grade of Assistant 2>", "7")

    assert read_grades(filled, "opera") == Grades((8, 7), (8, 7))


def test_without_a_picture_the_objects_and_kinds_are_listed() -> None:
    text = render("opera", "a", "b", objects=["dog", "couch"], kinds=["dog", "cat", "couch"])

    assert "marked in the image: couch, dog." in text
    assert "for no others: cat, couch, dog." in text
    assert "can't see it" in text
    assert "marked in the image" not in render("opera", "a", "b")
    assert "marked in the image: none." in render("opera", "a", "b", objects=[], kinds=["dog"])


def test_the_schema_is_strict_and_asks_for_reasons_first() -> None:
    form: Any = response_format("json")
    schema = form["json_schema"]["schema"]

    assert response_format("opera") is None
    assert form["json_schema"]["strict"] is True
    assert list(schema["properties"]) == list(CRITERIA)
    for criterion in schema["properties"].values():
        assert list(criterion["properties"]) == ["reason", "assistant_1", "assistant_2"]
        assert criterion["required"] == list(criterion["properties"])
        assert criterion["additionalProperties"] is False


REST = "\nReason: 3 dogs, 1 cat.\n\nDetailedness: 6 5\nReason: 10 words more."


def accuracy(reply: str) -> tuple[float, float] | None:
    found = read_grades(reply, "opera")
    return found.accuracy if isinstance(found, Grades) else None


# What stands behind "Accuracy:" and the grades that it means; None where it is unparsed.
LINES = [
    ("8 7", (8, 7)),
    ("8  7", (8, 7)),
    ("8\t7", (8, 7)),
    ("8, 7", (8, 7)),
    ("8,7", (8, 7)),
    ("8; 7", (8, 7)),
    ("8 | 7", (8, 7)),
    ("8 & 7", (8, 7)),
    ("8/7", (8, 7)),
    ("8 - 7", (8, 7)),
    ("8 and 7", (8, 7)),
    ("8, and 7", (8, 7)),
    ("8 vs 7", (8, 7)),
    ("8 vs. 7", (8, 7)),
    ("8/10 7/10", (8, 7)),
    ("8/10, 7/10.", (8, 7)),
    ("8 / 10 and 7 / 10", (8, 7)),
    ("8 out of 10, 7 out of 10", (8, 7)),
    ("10 10", (10, 10)),
    ("10/10 1/10", (10, 1)),
    ("7.5 8", (7.5, 8)),
    ("8.0, 7.25", (8, 7.25)),
    ("**8 7**", (8, 7)),
    ("`8 7`", (8, 7)),
    ("<8 7>", (8, 7)),
    ("[8, 7]", (8, 7)),
    ("<8> <7>", (8, 7)),
    ("8 7.", (8, 7)),
    ("8 7. The first one names the dog.", (8, 7)),
    ("8 7 (the second invents a cat)", (8, 7)),
    ("8 7 - the second invents a cat", (8, 7)),
    ("\n8 7", (8, 7)),
    ("\n- 8 7", (8, 7)),
    ("\n8\n7", (8, 7)),
    ("Assistant 1: 8, Assistant 2: 7", (8, 7)),
    ("Assistant 1: 8/10; Assistant 2: 7/10", (8, 7)),
    ("\nAssistant 1: 8\nAssistant 2: 7", (8, 7)),
    ("8 (Assistant 1) 7 (Assistant 2)", (8, 7)),
    ("Assistant 2: 7, Assistant 1: 8", (8, 7)),
    ("7 (Assistant 2), 8 (Assistant 1)", (8, 7)),
    ("8", None),
    ("8,", None),
    ("8/10", None),
    ("10/10", None),
    ("8 7 9", None),
    ("8 7 - 9", None),
    ("7,5 8", None),
    ("0 7", None),
    ("8 11", None),
    ("-8 7", None),
    ("8 -7", None),
    ("85 90", None),
    ("8.5.1 7", None),
    ("eight seven", None),
    ("N/A", None),
    ("Assistant 1: 8, Assistant 1: 7", None),
    ("Assistant 2: 8 7", None),
    ("Assistant 1 is better on 3 counts", None),
    ("between 7 and 8 for both of them", None),
    ("", None),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[repr(line) for line, _ in LINES])
def test_a_line_of_grades(line: str, expected: tuple[float, float] | None) -> None:
    assert accuracy(f"Accuracy: {line}{REST}") == expected


REPLIES = [
    ("ACCURACY: 8 7\ndetailedness: 6 5", (8, 7)),
    ("**Accuracy:** 8 7\n**Detailedness:** 6 5", (8, 7)),
    ("**Accuracy**: 8, 7\n**Detailedness**: 6, 5", (8, 7)),
    ("### Accuracy\n8 7\n### Detailedness\n6 5", (8, 7)),
    ("1: Accuracy: 8 7\n2: Detailedness: 6 5", (8, 7)),
    ("1. Accuracy - 8 7\n2. Detailedness - 6 5", (8, 7)),
    ("Accuracy = 8 7\nDetailedness = 6 5", (8, 7)),
    ("Accuracy scores: 8 7\nDetailedness scores: 6 5", (8, 7)),
    ("Accuracy (1-10): 8 7\nDetailedness (1-10): 6 5", (8, 7)),
    ("| Accuracy | 8 | 7 |\n| Detailedness | 6 | 5 |", (8, 7)),
    ("Accuracy: 8 7, Detailedness: 6 5", (8, 7)),
    ("Accuracy: 8 7\r\nReason: a\r\n\r\nDetailedness: 6 5\r\nReason: b", (8, 7)),
    ("Accuracy: 8 7 Reason: better\nDetailedness: 6 5 Reason: more", (8, 7)),
    ("Here you go.\n\nAccuracy: 8 7\nReason: accuracy is fine.\n\nDetailedness: 6 5", (8, 7)),
    ("1. Accuracy: does it agree?\n\nAccuracy: 8 7\nDetailedness: 6 5", (8, 7)),
    ("Accuracy: 8 7\nDetailedness: 6 5\n\nFinal:\nAccuracy: 8 7\nDetailedness: 6 5", (8, 7)),
    ("Accuracy: 8 7\nDetailedness: 6 5\n\nNo, Accuracy: 7 8\nDetailedness: 6 5", None),
    ("Accuracy: 8 7\nReason: good", None),
    ("Inaccuracy: 8 7\nDetailedness: 6 5", None),
    ("8 7\n6 5", None),
    ("I'm sorry, I can't help with that.", None),
    (" \n", None),
]


@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_a_whole_reply(reply: str, expected: tuple[float, float] | None) -> None:
    found = read_grades(reply, "opera")

    if expected is None:
        assert isinstance(found, Unparsed)
        assert found.reason
    else:
        assert found == Grades(expected, (6, 5))


def reply_in_json(accuracy: object, detailedness: object) -> str:
    return json.dumps({"accuracy": accuracy, "detailedness": detailedness})


GOOD = {"reason": "x", "assistant_1": 6, "assistant_2": 5.5}


@pytest.mark.parametrize(
    ("reply", "readable"),
    [
        (reply_in_json(GOOD, GOOD), True),
        (f"```json\n{reply_in_json(GOOD, GOOD)}\n```", True),
        (f"```\n{reply_in_json(GOOD, GOOD)}\n```\n", True),
        (reply_in_json(GOOD, None), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": 0}), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": 11}), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": "7"}), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": True}), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": math.nan}), False),
        (reply_in_json(GOOD, {**GOOD, "assistant_2": math.inf}), False),
        ("[1, 2]", False),
        ("7", False),
        ("[" * 100_000, False),
        ('{"accuracy": ' + "9" * 5000 + "}", False),
        ("Accuracy: 8 7\nDetailedness: 6 5", False),
        (reply_in_json(GOOD, GOOD)[:-3], False),
    ],
)
def test_a_reply_in_json(reply: str, readable: bool) -> None:
    found = read_grades(reply, "json")

    assert found == Grades((6, 5.5), (6, 5.5)) if readable else isinstance(found, Unparsed)


def test_the_reason_names_the_criterion() -> None:
    found = read_grades("Accuracy: 8 7\nDetailedness: good", "opera")

    assert isinstance(found, Unparsed)
    assert found.reason.startswith("detailedness: ")


PIECES = st.sampled_from(
    ["Accuracy", "accuracy: ", "Detailedness: ", "Reason: ", "8", "7.5", "10", "/10", " ", ", ",
     "\n", "**", "|", "Assistant 1", "(", ")", " - ", "out of 10", " and ", "{", '"', "1e999"]
)  # fmt: skip


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join)))
@example("Accuracy: 8,")
@example("Accuracy: " + "9" * 5000)
@example("Accuracy:" * 2000)
@example("Accuracy: 8" + " " * 5000 + "7")
def test_no_reply_raises_and_whatever_is_read_is_a_grade(reply: str) -> None:
    for protocol in ("opera", "json"):
        found = read_grades(reply, protocol)
        if isinstance(found, Grades):
            assert all(1 <= grade <= 10 for grade in (*found.accuracy, *found.detailedness))
        else:
            assert found.reason


GRADE = st.integers(10, 100).map(lambda tenths: tenths / 10)


@settings(deadline=None)
@given(GRADE, GRADE, GRADE, GRADE, st.sampled_from([" ", ", ", "; ", " | ", " and "]))
def test_any_grades_come_back(a: float, b: float, c: float, d: float, between: str) -> None:
    reply = f"Accuracy: {a}{between}{b}\nReason: x\n\nDetailedness: {c}{between}{d}\nReason: y"

    assert read_grades(reply, "opera") == Grades((a, b), (c, d))
