"""Read saved answers and match them with the questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.storage import Record, read_json_lines

UNNAMED: Final = "answers"


def read_answers(path: Path, items: Sequence[Item]) -> dict[str, list[Answer]]:
    """Read an answer file and return answers by arm, in the order of the questions.

    Takes JSON lines with `question_id` and `answer` (`method` and `pope_type` are obeyed where
    they are there), the answers.jsonl of a run's arm, or POPE's `question` and `answer` in the
    questions' order.

    Args:
        path: The file.
        items: The questions.
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
    parts: dict[str, list[Item]] = {}
    for item in items:
        parts.setdefault(item.part, []).append(item)
    if len(parts) > 1 and not all(_part(row) for row in rows):
        raise EvaluationError(
            f"{path} does not say which POPE type its answers are of; give one --pope-type"
        )
    only = next(iter(parts))
    matched: dict[str, list[Answer]] = {}
    for method in dict.fromkeys(row.get("method", UNNAMED) for row in rows):
        for part, asked in parts.items():
            mine = [
                row
                for row in rows
                if row.get("method", UNNAMED) == method and (_part(row) or only) == part
            ]
            texts = _by_id(path, mine, asked)
            matched.setdefault(method, []).extend(Answer(item, texts[item.id]) for item in asked)
    return matched


def _part(row: Record) -> Any:
    return row.get("pope_type", row.get("part"))


def _id(row: Record) -> Any:
    return row.get("question_id", row.get("id"))


def _by_id(path: Path, rows: Sequence[Record], items: Sequence[Item]) -> dict[int | str, str]:
    """Return answers by question id, after checking that they match one to one."""
    if all(_id(row) is not None for row in rows):
        ids = [_id(row) for row in rows]
    else:
        ids = _ids_in_order(path, rows, items)
    expected = [item.id for item in items]
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


def _ids_in_order(path: Path, rows: Sequence[Record], items: Sequence[Item]) -> list[int | str]:
    """Match POPE's own answer format, which has no ids, by order and by the question's text."""
    if len(rows) != len(items):
        raise EvaluationError(
            f"{path} holds {len(rows)} answers without question_id, but there are "
            f"{len(items)} questions; they must match in order"
        )
    for number, (row, item) in enumerate(zip(rows, items, strict=True), start=1):
        if row.get("question", item.question) != item.question:
            raise EvaluationError(
                f"{path}, answer {number} is to {row['question']!r}, but question {number} is "
                f"{item.question!r}; the order must be the question file's"
            )
    return [item.id for item in items]


def _without(these: Iterable[int | str], those: Iterable[int | str]) -> list[int | str]:
    known = set(those)
    return [item for item in these if item not in known]
