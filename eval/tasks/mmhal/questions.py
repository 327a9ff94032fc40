"""Read the benchmark's question file, `response_template.json`.

The type of a question is that of its row. If rows have no type, it depends on their order, as in
the benchmark's script: item i has type i mod 8, so all 96 must be present in the original order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from eval.errors import EvaluationError
from eval.files.rows import read_rows
from eval.files.storage import Record

NAME: Final = "mmhal"  # of the benchmark, in commands and folders
COUNT: Final = 96
# Item i is of type i mod 8.
TYPES: Final = (
    "attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic",
    "other",
)  # fmt: skip
SOURCE: Final = "response_template.json of the data set Shengcao1006/MMHal-Bench"
ANSWER: Final = "model_answer"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the benchmark.

    Attributes:
        position: Index in the file, from 0.
        image: Name of the picture's file; empty if the row has none.
        text: The question.
        reference: The reference answer, written by people.
        labels: Objects in the picture.
        kind: Type of the question.
        record: The row.
    """

    position: int
    image: str
    text: str
    reference: str
    labels: tuple[str, ...]
    kind: str
    record: Record

    @property
    def key(self) -> tuple[str, str]:
        """Picture and text, which identify the question."""
        return self.image, self.text


def read_questions(path: Path) -> list[Question]:
    """Read a question file, or a file of answers in its layout.

    Raises:
        EvaluationError: If it can't be read, or a row is incomplete or duplicated.
    """
    rows = read_rows(path).rows
    if not rows:
        raise EvaluationError(f"{path} has no questions; pass {SOURCE}")
    typed = [row for _, row in rows if row.get("question_type") is not None]
    if 0 < len(typed) < len(rows):
        raise EvaluationError(
            f"{path}: {len(typed)} of {len(rows)} rows have a question_type; give it to all rows, "
            "or to none"
        )
    if not typed and len(rows) != COUNT:
        raise EvaluationError(
            f"{path} has {len(rows)} rows without question_type; types can then only be derived "
            f"from the order of all {COUNT} questions: pass {SOURCE} as --questions"
        )
    found = [_question(at, row, f"{path}, {where}") for at, (where, row) in enumerate(rows)]
    twice = [key for key, count in Counter(one.key for one in found).items() if count > 1]
    if twice:
        places = [one.position + 1 for one in found if one.key == twice[0]]
        raise EvaluationError(
            f"{path} asks {twice[0][1]!r:.80} about {twice[0][0] or 'a picture without name'} in "
            f"rows {places[0]} and {places[1]}, but each question must be unique; remove one row"
        )
    return found


def in_order(questions: Sequence[Question]) -> bool:
    """Return whether each question is at an index where the benchmark's script expects its type."""
    return all(one.kind == TYPES[one.position % len(TYPES)] for one in questions)


def image_of(row: Record) -> str:
    """Return the picture's file name: the end of its URL, else its id; "" without both."""
    source = row.get("image_src")
    if isinstance(source, str) and source.strip():
        try:
            return unquote(urlsplit(source).path).rpartition("/")[2]
        except ValueError:
            return ""
    return str(row.get("image_id") or "")


def _question(position: int, row: Record, where: str) -> Question:
    labels = row.get("image_content")
    if not (isinstance(labels, list) and all(isinstance(one, str) for one in labels)):
        raise _wrong(where, "image_content", labels, "a list of labels")
    text, reference = row.get("question"), row.get("gt_answer")
    if not isinstance(text, str) or not text.strip():
        raise _wrong(where, "question", text, "text")
    if not isinstance(reference, str):
        raise _wrong(where, "gt_answer", reference, "text")
    kind = row.get("question_type", TYPES[position % len(TYPES)])
    if kind is None:
        kind = TYPES[position % len(TYPES)]
    if not isinstance(kind, str) or not kind.strip():
        raise _wrong(where, "question_type", kind, "text")
    return Question(
        position, image_of(row), text, reference, tuple(labels), kind.strip().lower(), row
    )


def _wrong(where: str, name: str, value: Any, needed: str) -> EvaluationError:
    what = f"no {name!r}" if value is None else f"the {name} {value!r:.40}"
    return EvaluationError(f"{where} has {what}; {needed} is needed, as in {SOURCE}")
