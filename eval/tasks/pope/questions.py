"""POPE's questions: read as published, checked line by line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.json_lines import read_json_lines

POPE_TYPES: Final = ("random", "popular", "adversarial")
LABELS: Final = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a question file."""

    question_id: int
    image: str
    text: str
    label: str


def question_file(folder: Path, pope_type: str) -> Path:
    """Return the path of a question file under its published name."""
    return folder / f"coco_pope_{pope_type}.json"


def read_questions(path: Path) -> list[Question]:
    """Read a question file: JSON lines with question_id, image, text and label.

    Raises:
        EvaluationError: Naming the line that is no question, or if there is none.
    """
    questions: list[Question] = []
    seen: dict[int, int] = {}
    for number, row in read_json_lines(path):
        question = _question(row, f"{path}, line {number}")
        if question.question_id in seen:
            raise EvaluationError(
                f"{path}, line {number}: question_id {question.question_id} stands in line "
                f"{seen[question.question_id]} already; each question needs an id of its own"
            )
        seen[question.question_id] = number
        questions.append(question)
    if not questions:
        raise EvaluationError(f"{path} holds no questions; download it again")
    return questions


def dump_questions(questions: Iterable[Question]) -> str:
    """Return the text of a question file."""
    return "".join(json.dumps(asdict(question)) + "\n" for question in questions)


def questions_hash(questions: Sequence[Question]) -> str:
    """Return the SHA-256 of the questions as parsed, the same whatever the line ends."""
    return hashlib.sha256(dump_questions(questions).encode()).hexdigest()


def _question(row: dict[str, Any], where: str) -> Question:
    for key, kind in (("question_id", int), ("image", str), ("text", str), ("label", str)):
        if not isinstance(row.get(key), kind):
            raise EvaluationError(
                f"{where}: {key!r} is {row.get(key)!r}; a question has question_id (a number), "
                "image, text and label"
            )
    if row["label"] not in LABELS:
        raise EvaluationError(f"{where}: label {row['label']!r} is neither 'yes' nor 'no'")
    return Question(row["question_id"], row["image"], row["text"], row["label"])
