"""The layouts of files of answers: the meaning of the keys that each tool writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.storage import Record

IDS: Final = ("question_id", "id", "qid")
ORDER: Final = ("index", "idx", "doc_id")
QUESTION: Final = (
    "query", "question", "prompt", "instruction", "problem", "messages", "conversations",
    "metadata.question",
)  # fmt: skip
Row = tuple[str, Record]
"""The position in the file, and the object."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of a row by meaning; of several keys, the first in the row counts.

    A dot in a key denotes a nested object.

    Attributes:
        name: Name in printed text.
        needs: Keys that every row has.
        answer: Keys of the model's answer.
        id: Keys of the question's id; without one, rows are matched by picture and text, or in
            order.
        question: Keys of the question, with or without a prompt around it.
        order: Key of the row's number, if the order of rows can differ from that of the questions.
        label: Keys of the right answer or a judge's verdict, which are never the model's answer.
        id_made_of: Keys whose values, joined by "_", are the id.
        part_made_of: Keys whose values, joined by "_", are the part.
    """

    name: str
    needs: tuple[str, ...]
    answer: tuple[str, ...]
    id: tuple[str, ...] = IDS
    question: tuple[str, ...] = QUESTION
    order: str = ""
    label: tuple[str, ...] = ()
    id_made_of: tuple[str, ...] = ()
    part_made_of: tuple[str, ...] = ()


PICTURE: Final = (
    "image", "images", "image_source", "image_path", "image_file", "image_id",
    "image_name", "file_name", "filename", "img", "img_path",
    "doc.image_source", "doc.image_path", "doc.image", "metadata.image",
    # lmms-eval's MME: the question's id is the picture's name, "existence/000000006040.jpg".
    "mme_perception_score.question_id", "mme_cognition_score.question_id",
)  # fmt: skip
PART: Final = (
    "pope_type", "part", "category", "doc.category", "metadata.category",
    "mme_perception_score.category", "mme_cognition_score.category",
)  # fmt: skip
ARM: Final = ("method", "model_id", "model")
LABEL: Final = ("label", "labels", "gt", "gt_answer", "gt_ans", "gold", "ground_truth", "target",
                "doc.answer")  # fmt: skip
LAYOUTS: Final = (
    Layout("answers of an arm", ("id", "image", "question", "answer", "finished"), ("answer",)),
    Layout("version 0.1", ("method", "question_id", "image", "answer", "finished"), ("answer",)),
    Layout(
        "lmms-eval samples",
        ("doc_id", "doc"),
        ("filtered_resps", "resps"),
        ("doc.question_id",),
        ("doc.question", "input"),
        "doc_id",
        ("target",),
    ),
    Layout(
        "HallusionBench",
        ("category", "subcategory", "set_id", "figure_id", "question_id", "model_prediction"),
        ("model_prediction",),
        label=("gt_answer", "gpt4v_output_gpt_check"),
        id_made_of=("set_id", "figure_id", "question_id"),
        part_made_of=("category", "subcategory"),
    ),
    # Version 0.7 leaves out the document, so that only the row's number identifies the question.
    Layout(
        "lmms-eval samples",
        ("doc_id", "input", "target", "filtered_resps"),
        ("filtered_resps", "resps"),
        (),
        ("input",),
        "doc_id",
        ("target",),
    ),
    Layout("LLaVA", ("question_id", "prompt", "text"), ("text",), question=("prompt",)),
    # PAI's pope_eval.py: turns of a dialogue in order, without ids; `question` is the whole prompt.
    Layout("PAI", ("query", "label", "ans"), ("ans",), question=("query",)),
    Layout(
        "VLMEvalKit table",
        ("index", "question", "answer", "prediction"),
        ("prediction",),
        ("question_id",),
        order="index",
        label=("answer",),
    ),
)
# Keys that may be the model's answer, and words in a key that rule this out.
_SAID: Final = re.compile(
    r"(^|_)(text|ans|answers?|resps?|responses?|outputs?|pred|preds|predictions?|predicted|caption|"
    r"generated|generation|completion|reply|results?|said|content|decoded)(_|$)"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_OTHER: Final = re.compile(
    r"(^|_)(id|ids|gt|gold|true|truth|correct|target|reference|label|prompt|question|query|type|"
    r"image|path|file|name|time|tokens|key|score)(_|$)"
)


def value_of(row: Record, keys: Sequence[str]) -> Any:
    """Return the value of the first of some keys that a row has; None if it has none of them."""
    key = key_of(row, keys)
    return None if key is None else _look(row, key)[0]


def key_of(row: Record, keys: Sequence[str]) -> str | None:
    """Return the first of some keys that a row has; None if it has none of them."""
    return next((key for key in keys if _look(row, key)), None)


def layout_of(
    path: Path, rows: Sequence[Row], answer_key: str | None = None, id_key: str | None = None
) -> Layout:
    """Return the layout of a file.

    Args:
        path: The file, for error messages.
        rows: At least one row.
        answer_key: Key of the model's answer; None to find it.
        id_key: Key of the question's id; None to find it.
    Raises:
        EvaluationError: If no key, or more than one, could be the answer, or a given key is not
            in every row.
    """
    for flag, key in (("--answer-key", answer_key), ("--id-key", id_key)):
        for where, row in rows:
            if key is not None and key_of(row, (key,)) is None:
                raise EvaluationError(
                    f"{flag} {key} is not a key of {path}, {where}; pass one of its keys: "
                    f"{', '.join(sorted(row))}"
                )
    keys = set(rows[0][1]).intersection(*(row for _, row in rows))
    candidates = answer_keys(rows)
    layout = next((one for one in LAYOUTS if _fits(one, keys, candidates)), None)
    if layout is None:
        layout = _guess_layout(path, rows, candidates, answer_key)
    if answer_key is not None:
        layout = replace(layout, name=f"{layout.name}, {answer_key!r}", answer=(answer_key,))
    return layout if id_key is None else replace(layout, id=(id_key,))


def answer_keys(rows: Sequence[Row]) -> list[str]:
    """Return the keys that could be the model's answer: by name, and with text in some row."""
    names = dict.fromkeys(key for _, row in rows for key in row)
    snake = {key: _snake(key) for key in names if key not in ARM}
    named = [key for key, of in snake.items() if _SAID.search(of) and not _OTHER.search(of)]
    texts = [key for key in named if any(isinstance(row.get(key), str) for _, row in rows)]
    return texts or named


def _fits(layout: Layout, keys: set[str], candidates: Sequence[str]) -> bool:
    """Return whether rows have a layout, and no further key that could be the answer."""
    known = {*layout.needs, *layout.answer, *layout.label}
    return set(layout.needs) <= keys and set(candidates) <= known


def _guess_layout(
    path: Path, rows: Sequence[Row], candidates: Sequence[str], answer_key: str | None
) -> Layout:
    """Guess the layout of rows that no known tool writes."""
    first = rows[0][1]
    if answer_key is not None:
        return _layout_with("rows", answer_key, first)
    if len(candidates) != 1:
        what = (
            f"{' and '.join(map(repr, candidates))} could each be the model's answer"
            if candidates
            else "no key looks like the model's answer"
        )
        raise EvaluationError(
            f"{path}: {what}; pass the key of the answer as --answer-key (the keys are "
            f"{', '.join(sorted(first))})"
        )
    (key,) = candidates
    ids = any(key_of(row, IDS) for _, row in rows)
    popes = not ids and key == "answer" and "question" in first
    return _layout_with("POPE's own, in order" if popes else f"rows with {key!r}", key, first)


def _layout_with(name: str, answer: str, first: Record) -> Layout:
    """Return a layout with the given key for the answer, and other keys from the first row."""
    # In POPE's question files with an added answer, `text` is the question.
    asks = (key for key in ("text", "input") if key != answer and "?" in str(first.get(key)))
    order = key_of(first, ORDER) or ""
    return Layout(name, (), (answer,), question=(*QUESTION, *asks), order=order)


def _look(row: Record, key: str) -> list[Any]:
    """Return the value of a key in a list; [] without it. Dots denote nesting; case may differ."""
    name = key if key in row else next((name for name in row if _snake(name) == key), None)
    if name is not None:
        return [row[name]]
    outer, dot, inner = key.partition(".")
    within = row.get(outer)
    return _look(within, inner) if dot and isinstance(within, dict) else []


@cache
def _snake(key: str) -> str:
    """Return a key in snake case: "question_id" for "questionId" and "Question ID"."""
    return _CAMEL.sub("_", key).lower()
