"""Answers survive their way through a file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.files.answers import Answer, Finding, Item, answer_of

items = st.builds(
    Item,
    id=st.integers() | st.text(min_size=1),
    image=st.text(min_size=1),
    question=st.text(min_size=1),
    label=st.text(),
    part=st.text(),
)
findings = st.builds(
    Finding,
    layer=st.integers(0, 99),
    head=st.none() | st.integers(0, 99),
    sinks=st.integers(0, 999),
    image_tokens=st.integers(0, 999),
    saturated=st.booleans(),
)
recorded = st.builds(
    Answer,
    item=items,
    text=st.text(),
    finished=st.booleans(),
    findings=st.lists(findings, max_size=3).map(tuple),
    p_yes=st.none() | st.floats(0, 1),
)


@given(recorded)
def test_an_answer_comes_back_from_its_line(answer: Answer) -> None:
    assert answer_of(json.loads(json.dumps(answer.as_record())), "here") == answer


def test_a_line_holds_what_was_asked_said_and_found() -> None:
    answer = Answer(
        Item(0, "a.jpg", "Is it?", "no", "random"), "", False, (Finding(1, 2, 3, 4, True),)
    )

    assert answer.as_record() == {
        "id": 0, "image": "a.jpg", "question": "Is it?", "label": "no", "part": "random",
        "answer": "", "finished": False,
        "eah": [{"layer": 1, "head": 2, "sinks": 3, "image_tokens": 4, "saturated": True}],
    }  # fmt: skip
    assert Answer(Item(1, "a.jpg", "?"), "x", p_yes=0.0).as_record()["p_yes"] == 0.0
    assert Answer(Item("b", "a.jpg", "Is it?"), "x").as_record() == {
        "id": "b", "image": "a.jpg", "question": "Is it?", "answer": "x", "finished": True,
    }  # fmt: skip


def test_a_question_is_known_by_its_part_and_id() -> None:
    assert Item(3, "a.jpg", "Is it?", part="popular").key == ("popular", 3)


@pytest.mark.parametrize(
    "change",
    [
        {"answer": None},
        {"id": None},
        {"eah": [{"layer": 1}]},
        {"eah": 5},
        {"p_yes": "0.5"},
        {"p_yes": True},
        {"p_yes": -0.1},
        {"p_yes": 1.5},
        {"p_yes": float("nan")},
        {"p_yes": float("inf")},
    ],
)
def test_a_line_that_is_no_answer_is_one_sentence(change: dict[str, Any]) -> None:
    record = {**Answer(Item(1, "a.jpg", "Is it?"), "yes").as_record(), **change}
    record = {name: value for name, value in record.items() if value is not None}

    with pytest.raises(
        EvaluationError, match=r"^here is not a recorded answer .*; delete that line"
    ):
        answer_of(record, "here")
