"""What the judge is asked: the paper's structure, both answers untouched, nobody named."""

from __future__ import annotations

from typing import Any

import pytest

from eval.tasks.judge.parser import Grades, read_grades
from eval.tasks.judge.prompts import CRITERIA, PROTOCOLS, render, response_format

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
