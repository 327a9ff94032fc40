"""Saved answers are matched with the questions, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.tasks.pope.answers import UNNAMED, read_answers

QUESTIONS = [
    Item(1, "a.jpg", "Is there a dog in the image?", "yes", "random"),
    Item(5, "a.jpg", "Is there a cat in the image?", "no", "random"),
]
OTHERS = [Item(1, "b.jpg", "Is there a dog in the image?", "no", "popular")]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_by_id_may_come_in_any_order(tmp_path: Path) -> None:
    rows = [{"question_id": 5, "answer": "No"}, {"question_id": 1, "answer": "Yes"}]

    matched = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert matched == {UNNAMED: [Answer(QUESTIONS[0], "Yes"), Answer(QUESTIONS[1], "No")]}


def test_popes_own_format_is_matched_by_order(tmp_path: Path) -> None:
    rows = [{"question": q.question, "answer": a} for q, a in zip(QUESTIONS, "YN", strict=True)]

    matched = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert [answer.text for answer in matched[UNNAMED]] == ["Y", "N"]


def test_answers_of_several_methods_and_types_keep_both(tmp_path: Path) -> None:
    items = [*QUESTIONS, *OTHERS]
    rows = [
        {"method": method, "pope_type": item.part, "question_id": item.id,
         "answer": f"{method} {item.part} {item.id}"}
        for item in reversed(items)
        for method in ("baseline", "eah")
    ]  # fmt: skip

    matched = read_answers(written(tmp_path / "a.jsonl", rows), items)

    assert matched == {
        method: [Answer(item, f"{method} {item.part} {item.id}") for item in items]
        for method in ("baseline", "eah")
    }


def test_the_answers_of_an_arm_are_read(tmp_path: Path) -> None:
    items = [*QUESTIONS, *OTHERS]
    rows = [Answer(item, f"{item.part} {item.id}").as_record() for item in items]

    matched = read_answers(written(tmp_path / "answers.jsonl", rows), items)

    assert matched == {UNNAMED: [Answer(item, f"{item.part} {item.id}") for item in items]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no answers"),
        ([{"question_id": 1, "answer": "Yes"}], r"has no answer to question_id 5 \(1 such\)"),
        ([{"question_id": i, "answer": "Yes"} for i in (1, 5, 9)], "question_id 9, which the"),
        ([{"question_id": i, "answer": "Yes"} for i in (1, 5, 5)], "question_id 5 more than once"),
        ([{"question_id": 1, "text": "Yes"}], "'answer' is None, not text; the keys there are"),
        ([{"answer": "Yes"}], "1 answers without question_id, but there are 2 questions"),
        ([{"question": "?", "answer": "Yes"}] * 2, "answer 1 is to '\\?', but question 1 is"),
    ],
)
def test_answers_that_do_not_match_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)


def test_answers_without_a_type_need_one_type(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question_id": 1, "answer": "Yes"}])

    with pytest.raises(EvaluationError, match="give one --pope-type"):
        read_answers(path, [*QUESTIONS, *OTHERS])


def test_an_answer_of_another_type_is_not_taken(tmp_path: Path) -> None:
    rows = [{"pope_type": "popular", "question_id": i, "answer": "Yes"} for i in (1, 5)]

    with pytest.raises(EvaluationError, match="has no answer to question_id 1"):
        read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)
