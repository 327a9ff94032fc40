"""Saved answers are matched with the questions, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.pope.answers import read_answers
from eval.tasks.pope.questions import Question

QUESTIONS = {
    "random": [
        Question(1, "a.jpg", "Is there a dog in the image?", "yes"),
        Question(5, "a.jpg", "Is there a cat in the image?", "no"),
    ]
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_by_id_may_come_in_any_order(tmp_path: Path) -> None:
    rows = [{"question_id": 5, "answer": "No"}, {"question_id": 1, "answer": "Yes"}]

    matched = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert [(row["question_id"], row["answer"]) for row in matched] == [(1, "Yes"), (5, "No")]
    assert [row["label"] for row in matched] == ["yes", "no"]


def test_popes_own_format_is_matched_by_order(tmp_path: Path) -> None:
    rows = [
        {"question": q.text, "answer": a} for q, a in zip(QUESTIONS["random"], "YN", strict=True)
    ]

    matched = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert [row["answer"] for row in matched] == ["Y", "N"]


def test_predictions_of_a_run_keep_their_methods(tmp_path: Path) -> None:
    rows = [
        {"method": method, "pope_type": "random", "question_id": i, "answer": method}
        for method in ("baseline", "eah")
        for i in (1, 5)
    ]

    matched = read_answers(written(tmp_path / "a.jsonl", rows), QUESTIONS)

    assert [row["method"] for row in matched] == ["baseline", "baseline", "eah", "eah"]


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
        read_answers(path, {**QUESTIONS, "popular": QUESTIONS["random"]})
