"""Read saved answers and match them with the questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.json_lines import read_json_lines
from eval.tasks.pope.questions import Question

Row = dict[str, Any]
UNNAMED: Final = "answers"


def read_answers(path: Path, questions: Mapping[str, Sequence[Question]]) -> list[Row]:
    """Read an answer file and return one row per answer, as a run records them.

    Takes JSON lines with `question_id` and `answer` (our own predictions.jsonl too, whose `method`
    and `pope_type` are obeyed), or POPE's `question` and `answer` in the questions' order.

    Args:
        path: The file.
        questions: Questions by POPE type.
    Raises:
        EvaluationError: If the answers do not match the questions one to one.
    """
    rows = [row for _, row in read_json_lines(path)]
    if not rows:
        raise EvaluationError(f"{path} holds no answers")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("answer"), str):
            raise EvaluationError(
                f"{path}, answer {number}: 'answer' is {row.get('answer')!r}, not text; "
                f"the keys there are {', '.join(sorted(row))}"
            )
    if len(questions) > 1 and not all("pope_type" in row for row in rows):
        raise EvaluationError(
            f"{path} does not say which POPE type its answers are of; give one --pope-type"
        )
    matched: list[Row] = []
    only = next(iter(questions))
    for method in dict.fromkeys(row.get("method", UNNAMED) for row in rows):
        for pope_type, asked in questions.items():
            mine = [
                row
                for row in rows
                if row.get("method", UNNAMED) == method and row.get("pope_type", only) == pope_type
            ]
            texts = _by_id(path, mine, asked)
            matched += [
                recorded(question, pope_type)
                | {"method": method, "answer": texts[question.question_id]}
                for question in asked
            ]
    return matched


def recorded(question: Question, pope_type: str) -> Row:
    """Return what is recorded of a question with its answer."""
    return {
        "pope_type": pope_type,
        "question_id": question.question_id,
        "image": question.image,
        "question": question.text,
        "label": question.label,
    }


def _by_id(path: Path, rows: Sequence[Row], questions: Sequence[Question]) -> dict[int, str]:
    """Return answers by question id, after checking that they match one to one."""
    if all("question_id" in row for row in rows):
        ids = [row["question_id"] for row in rows]
    else:
        ids = _ids_in_order(path, rows, questions)
    expected = [question.question_id for question in questions]
    doubled = (
        [i for i in dict.fromkeys(ids) if ids.count(i) > 1] if len(set(ids)) < len(ids) else []
    )
    for problem, found in (
        ("answers question_id {} more than once", doubled),
        ("has no answer to question_id {}", _without(expected, ids)),
        ("answers question_id {}, which the question file does not have", _without(ids, expected)),
    ):
        if found:
            raise EvaluationError(
                f"{path} {problem.format(found[0])} ({len(found)} such); "
                "pass the question file that the answers were made from"
            )
    return {row_id: row["answer"] for row_id, row in zip(ids, rows, strict=True)}


def _ids_in_order(path: Path, rows: Sequence[Row], questions: Sequence[Question]) -> list[int]:
    """Match POPE's own answer format, which has no ids, by order and by the question's text."""
    if len(rows) != len(questions):
        raise EvaluationError(
            f"{path} holds {len(rows)} answers without question_id, but there are "
            f"{len(questions)} questions; they must match in order"
        )
    for number, (row, question) in enumerate(zip(rows, questions, strict=True), start=1):
        if row.get("question", question.text) != question.text:
            raise EvaluationError(
                f"{path}, answer {number} is to {row['question']!r}, but question {number} is "
                f"{question.text!r}; the order must be the question file's"
            )
    return [question.question_id for question in questions]


def _without(these: Iterable[int], those: Iterable[int]) -> list[int]:
    known = set(those)
    return [item for item in these if item not in known]
