"""Files that answer some of the questions only: refused, or scored with what they lack said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.said import Matching

THINGS = ("cat", "dog", "cup")
ITEMS = [
    Item(f"{part}-{k}", f"{k}.jpg", f"Is there a {thing}?", "no", part)
    for part in ("a", "b")
    for k, thing in enumerate(THINGS)
]
PARTIAL = Matching(partial=True)


def read(folder: Path, rows: Any, rule: Matching, items: list[Item] = ITEMS) -> list[Any]:
    path = folder / "answers.json"
    path.write_text(json.dumps(rows))
    found = read_answers(path, items, rule=rule)
    return [(answer.item.id, answer.text) for answer in found.arms["answers"]]


def test_ids_alone_find_questions_of_several_parts(tmp_path: Path) -> None:
    rows = [{"id": item.id, "answer": f"no {item.id}"} for item in reversed(ITEMS)]

    assert read(tmp_path, rows, Matching()) == [(i.id, f"no {i.id}") for i in ITEMS]
    with pytest.raises(
        EvaluationError, match=r"no answer to question_id a-0 \(3 such\).* --partial"
    ):
        read(tmp_path, rows[:-3], Matching())


@pytest.mark.parametrize("named", [False, True])
def test_some_answers_are_taken_by_id(tmp_path: Path, named: bool) -> None:
    rows = [
        {"id": at, "answer": "no", **({"part": at[0]} if named else {})} for at in ("b-1", "a-0")
    ]

    assert read(tmp_path, rows, PARTIAL) == [("a-0", "no"), ("b-1", "no")]
    assert read(tmp_path, rows[:1], PARTIAL) == [("b-1", "no")]
    for wrong, said in ((rows * 2, "more than once"), ([{"id": "c-0", "answer": "no"}], "c-0, which"
                        )):  # fmt: skip
        with pytest.raises(EvaluationError, match=said):
            read(tmp_path, wrong, PARTIAL)


def test_some_answers_are_taken_by_picture_and_text(tmp_path: Path) -> None:
    items = ITEMS[:3]
    rows = [{"image": f"x/{k}.jpg", "question": f"is there a {THINGS[k]}? ", "answer": str(k)}
            for k in (2, 0)]  # fmt: skip

    assert read(tmp_path, rows, PARTIAL, items) == [("a-0", "0"), ("a-2", "2")]
    with pytest.raises(EvaluationError, match="2 answers without question_id, but there are 3"):
        read(tmp_path, rows, Matching(), items)


def test_rows_that_say_nothing_of_their_question_have_to_be_all(tmp_path: Path) -> None:
    rows = [{"answer": str(k)} for k in range(2)]

    with pytest.raises(EvaluationError, match="2 answers without question_id, but there are 3"):
        read(tmp_path, rows, PARTIAL, ITEMS[:3])
    assert len(read(tmp_path, [*rows, {"answer": "2"}], PARTIAL, ITEMS[:3])) == 3


def test_ids_of_another_half_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = Matching(ignored=frozenset([7, 8]))
    rows = [{"id": at, "answer": "x"} for at in (7, "a-0", "a-1", "a-2", 8)]

    assert [at for at, _ in read(tmp_path, rows, rule, ITEMS[:3])] == ["a-0", "a-1", "a-2"]
    assert "note: 2 rows of answers.json are of other questions" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="no answer to any of the 3 questions"):
        read(tmp_path, rows[:1], rule, ITEMS[:3])


def test_arms_that_answer_other_questions_are_refused(tmp_path: Path) -> None:
    rows = [{"id": "a-0", "answer": "x", "method": "one"},
            {"id": "a-1", "answer": "x", "method": "two"}]  # fmt: skip

    with pytest.raises(EvaluationError, match="one and two answer 2 questions that the other does"):
        read(tmp_path, rows, PARTIAL)


def test_with_by_text_ids_count_for_nothing(tmp_path: Path) -> None:
    rows = [
        {"id": "a-1", "image": "0.jpg", "question": "Is there a cat?", "answer": "cat"},
        {"id": "a-9", "image": "0.jpg", "question": "Is there a bus?", "answer": "bus"},
    ]

    assert read(tmp_path, rows, Matching(by_text=True), ITEMS[:3]) == [("a-0", "cat")]
