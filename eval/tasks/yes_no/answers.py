"""Read files of saved answers, from this project or from another tool."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item, answer_of
from eval.files.rows import read_rows
from eval.files.saved import NO_MODEL, SavedAnswers
from eval.files.storage import Record, read_json, read_json_lines
from eval.run.arm_folder import ANSWERS, ARM
from eval.run.folder import OLD_ANSWERS, RUN
from eval.tasks.yes_no import layouts
from eval.tasks.yes_no.answer_rows import ONE_TO_ONE, AnswerRow, Matching
from eval.tasks.yes_no.identity import id_of
from eval.tasks.yes_no.layouts import Layout, layout_of, value_of
from eval.tasks.yes_no.matching import match, rows_of_parts
from models.settings import available

UNNAMED: Final = "answers"
MADE: Final = ("model", "family", "protocol")  # settings of run.json that describe the answers
METHOD: Final = "method"
LABEL_WORDS: Final = {1: "yes", 0: "no"}  # labels in PAI's rows
LONGEST_PICTURE: Final = 500  # longer text is the encoded picture itself, as in VLMEvalKit's files


def read_answers(
    path: Path,
    items: Sequence[Item],
    *,
    answer_key: str | None = None,
    id_key: str | None = None,
    rule: Matching = ONE_TO_ONE,
) -> SavedAnswers:
    """Read a file of answers and return them by arm, in the order of the questions.

    Args:
        path: JSON lines, a JSON list, CSV or TSV, from a tool in `layouts.LAYOUTS` or with the
            given keys.
        items: The questions.
        answer_key: Key of the model's answer; None to find it.
        id_key: Key of the question's id; None to find it.
        rule: How rows are matched with questions.
    Raises:
        EvaluationError: If the answers don't match the questions by the rule.
    """
    own = _record_of(path)
    if own is not None and path.name == ANSWERS:
        lines = read_json_lines(path)  # an arm's file is never a table or a list
        kind, rows = "JSON lines", [(f"line {number}", row) for number, row in lines]
    else:
        read = read_rows(path)
        kind, rows = read.layout, read.rows
    if not rows:
        raise EvaluationError(f"{path} has no answers; pass the file of the model's answers")
    layout = layout_of(path, rows, answer_key, id_key)
    said = [_read_row(path, layout, where, row) for where, row in rows]
    if ignored := sum(one.id in rule.ignored for one in said):
        print(f"note: {ignored} row(s) of {path.name} answer other questions and are not scored",
              file=sys.stderr)  # fmt: skip
        said = [one for one in said if one.id not in rule.ignored]
    if not said:
        raise EvaluationError(f"{path} has no answer to any of the {len(items)} questions; pass "
                              "the question file that the answers were made from")  # fmt: skip
    if layout.order and all(one.id is None for one in said):
        order = [_number(path, where, row, layout.order) for where, row in rows]
        _check_unique_order(path, layout.order, said, order)
        said = [one for _, one in sorted(zip(order, said, strict=True), key=_first)]
    by_method = any(METHOD in row for _, row in rows)
    model, named = _group_by_arm(path, said, _arm_of(path), by_method=by_method)
    others: Counter[str] = Counter()
    arms = {arm: match(path, of, items, others, rule) for arm, of in named.items()}
    _check_same_questions(path, arms, len(items))
    if others:
        print(
            f"note: {path.name} also has answers to other parts, which are not scored: "
            f"{rows_of_parts(others)}; --pope-type or --part selects the parts to score",
            file=sys.stderr,
        )
    facts = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "layout": f"{layout.name} ({kind})",
        "answer_key": answer_key,
        "id_key": id_key,
    }
    made: Record = {name: own[name] for name in MADE if name in own} if own else {}
    return SavedAnswers(str(made.get("model", model)), arms, facts, made)


def _check_same_questions(path: Path, arms: Mapping[str, Sequence[Answer]], count: int) -> None:
    """Refuse a file that answers no question, or whose arms answer different questions."""
    keys = {arm: {answer.item.key for answer in answers} for arm, answers in arms.items()}
    first = next(iter(keys))
    for arm, of in keys.items():
        if not of:
            raise EvaluationError(
                f"{path} has no answer{f' of {arm}' if len(arms) > 1 else ''} to any of the "
                f"{count} questions; pass the question file that the answers were made from"
            )
        if unshared := of ^ keys[first]:
            raise EvaluationError(
                f"{path}: {len(unshared)} questions are answered by only one of {first} and {arm}, "
                "so the two can't be compared; answer the same questions in both, or pass a file "
                "with one of them"
            )


def _read_row(path: Path, layout: Layout, where: str, row: Record) -> AnswerRow:
    """Convert a row of the file."""
    at = f"{path}, {where}"
    text = _text(at, row, layout)
    key = layouts.key_of(row, layout.id)
    row_id = None if key is None else id_of(value_of(row, layout.id))
    if key is not None and row_id is None:
        raise EvaluationError(
            f"{at}: {key!r} is {value_of(row, layout.id)!r:.60}; a question's id must be a whole "
            "number or text: correct it, or name another key with --id-key"
        )
    arm, part = (_name(at, row, keys) for keys in (layouts.ARM, layouts.PART))
    if layout.id_made_of:
        row_id, part = (
            "_".join(str(value_of(row, (key,))) for key in keys)
            for keys in (layout.id_made_of, layout.part_made_of)
        )
    picture = _picture(value_of(row, layouts.PICTURE))
    answer = Answer(Item(0, "", ""), text)
    if layout is layouts.LAYOUTS[0]:
        answer = answer_of(row, at)
    question = " ".join(_texts(value_of(row, layout.question))) or None
    return AnswerRow(where, arm, part, row_id, question, picture, answer, _label(row, layout))


def _label(row: Record, layout: Layout) -> str | None:
    """Return the right answer according to a row; None if it is neither yes nor no."""
    keys = [key for key in (*layout.label, *layouts.LABEL) if key not in layout.answer]
    value = _single(value_of(row, keys))
    said = LABEL_WORDS.get(value, value) if isinstance(value, int) else value
    label = said.strip().lower() if isinstance(said, str) else None
    return label if label in LABEL_WORDS.values() else None


def _picture(value: Any) -> int | str | None:
    """Return a picture's name or number; None if the value has neither."""
    value = _single(value)
    if isinstance(value, dict):  # in Hugging Face's data sets
        value = value.get("path")
    name = id_of(value)
    return name if len(str(name)) <= LONGEST_PICTURE else None


def _texts(value: Any) -> list[str]:
    """Return the texts in a value: the value itself, or the texts of a dialogue's messages."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for one in inner for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def _single(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _text(at: str, row: Record, layout: Layout) -> str:
    """Return the model's answer, which is text, or a list with one text."""
    value = _single(value_of(row, layout.answer))
    if not isinstance(value, str):
        key = layouts.key_of(row, layout.answer) or layout.answer[0]
        raise EvaluationError(
            f"{at}: {key!r} is {value!r:.60}, not text; pass the key of the model's answer as "
            f"--answer-key (the keys are {', '.join(sorted(row))}), or write the answer as text, "
            '"" if it is empty'
        )
    return value


def _name(at: str, row: Record, keys: Sequence[str]) -> str | None:
    """Return the name of an arm or a part; None if the row has none."""
    value = value_of(row, keys)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise EvaluationError(
            f"{at}: {layouts.key_of(row, keys)!r} is {value!r:.60}, but a name must be text; "
            "correct or remove it"
        )
    return str(value).strip()


def _group_by_arm(
    path: Path, said: Sequence[AnswerRow], unnamed: str, *, by_method: bool
) -> tuple[str, dict[str, list[AnswerRow]]]:
    """Return the model's name and the rows by arm.

    Exports of this project name model and arm, such as "llava-1.5/eah". Other tools name the model;
    if a file has several models, each is an arm.
    """
    names = dict.fromkeys(one.arm for one in said)
    if None in names and len(names) > 1:
        raise EvaluationError(
            f"{path} names the model or method in some rows only; name it in every row, or in none"
        )
    model, arms = NO_MODEL, {name: str(name or unnamed) for name in names}
    heads = {str(name).rpartition("/")[0] for name in names}
    if len(heads) == 1 and heads <= {*available(), NO_MODEL}:
        model, arms = heads.pop(), {name: str(name).rpartition("/")[2] for name in names}
    elif len(names) == 1 and None not in names and not by_method:
        model, arms = next(iter(arms.values())), dict.fromkeys(names, unnamed)
    folders = {arm: re.sub(r"[^\w.@=+,:-]+", "-", arm).strip(".-") for arm in arms.values()}
    if len(set(folders.values())) < len(folders) or "" in folders.values():
        raise EvaluationError(
            f"{path} has arms whose names can't be used for folders: {', '.join(folders)}; rename "
            "them"
        )
    found: dict[str, list[AnswerRow]] = {}
    for one in said:
        found.setdefault(folders[arms[one.arm]], []).append(one)
    return model, found


def _record_of(path: Path) -> Record | None:
    """Return the settings in run.json, if a file of answers is in a run folder."""
    depth = {ANSWERS: 2, OLD_ANSWERS: 0}.get(path.name)
    if depth is None:
        return None
    folder = Path(os.path.realpath(path)).parents[depth]
    if not (folder / RUN).is_file() or (depth and not path.with_name(ARM).is_file()):
        return None
    settings = read_json(folder / RUN).get("settings")
    return settings if isinstance(settings, dict) else None


def _number(path: Path, where: str, row: Record, key: str) -> int:
    value = value_of(row, (key,))
    number = id_of(value)
    if not isinstance(number, int):
        raise EvaluationError(
            f"{path}, {where}: {key!r} is {value!r:.60}, but rows without a question's id are "
            "sorted by it; a whole number is needed"
        )
    return number


def _check_unique_order(
    path: Path, key: str, said: Sequence[AnswerRow], order: Sequence[int]
) -> None:
    """Refuse rows that are sorted by a number that is not unique."""
    seen: set[tuple[str | None, str | None, int]] = set()
    for one, number in zip(said, order, strict=True):
        if (one.arm, one.part, number) in seen:
            raise EvaluationError(
                f"{path}, {one.where}: {key} {number} is duplicated, but rows without a question's "
                "id are sorted by it; pass the log of a single run of a single task"
            )
        seen.add((one.arm, one.part, number))


def _first(pair: tuple[int, AnswerRow]) -> int:
    return pair[0]


def _arm_of(path: Path) -> str:
    """Return the name of the arm whose folder contains the file; a neutral name for other files."""
    info = path.with_name(ARM)
    if path.name == ANSWERS and info.is_file():
        return str(read_json(info).get("name", UNNAMED))
    return UNNAMED
