"""Read files of saved answers, of this project or of another tool."""

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
from eval.tasks.yes_no.identity import id_of
from eval.tasks.yes_no.layouts import Layout, layout_of, value_of
from eval.tasks.yes_no.matching import match, rows_of_parts
from eval.tasks.yes_no.said import ONE_TO_ONE, Matching, Said
from models.settings import available

UNNAMED: Final = "answers"
MADE: Final = ("model", "family", "protocol")  # what run.json says of answers of this project
METHOD: Final = "method"
LABEL_WORDS: Final = {1: "yes", 0: "no"}  # as PAI's rows have it
LONGEST_PICTURE: Final = 500  # a longer text is the picture itself, as VLMEvalKit has it


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
        path: JSON lines, a JSON list, CSV or TSV, of any tool in `layouts.LAYOUTS` or with keys
            that are given.
        items: The questions.
        answer_key: Key that holds what the model said; None to find it.
        id_key: Key that holds the question's id; None to find it.
        rule: How rows are matched with questions.
    Raises:
        EvaluationError: If the answers don't match the questions one to one, or as the rule has it.
    """
    own = _record_of(path)
    if own is not None and path.name == ANSWERS:
        lines = read_json_lines(path)  # never a table or a list, whatever it holds
        kind, rows = "JSON lines", [(f"line {number}", row) for number, row in lines]
    else:
        read = read_rows(path)
        kind, rows = read.layout, read.rows
    if not rows:
        raise EvaluationError(f"{path} holds no answers; pass the file that the model's are in")
    layout = layout_of(path, rows, answer_key, id_key)
    said = [_said(path, layout, where, row) for where, row in rows]
    if ignored := sum(one.id in rule.ignored for one in said):
        print(f"note: {ignored} row(s) of {path.name} are of other questions, and not scored",
              file=sys.stderr)  # fmt: skip
        said = [one for one in said if one.id not in rule.ignored]
    if not said:
        raise EvaluationError(f"{path} has no answer to any of the {len(items)} questions; pass "
                              "the question file that the answers were made from")  # fmt: skip
    if layout.order and all(one.id is None for one in said):
        order = [_number(path, where, row, layout.order) for where, row in rows]
        _check_once(path, layout.order, said, order)
        said = [one for _, one in sorted(zip(order, said, strict=True), key=_first)]
    by_method = any(METHOD in row for _, row in rows)
    model, named = _named_arms(path, said, _arm_of(path), by_method=by_method)
    others: Counter[str] = Counter()
    arms = {arm: match(path, of, items, others, rule) for arm, of in named.items()}
    _check_alike(path, arms, len(items))
    if others:
        print(
            f"note: {path.name} has answers to parts that are not asked for and not scored: "
            f"{rows_of_parts(others)}; --pope-type, or --part, names the parts to score",
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


def _check_alike(path: Path, arms: Mapping[str, Sequence[Answer]], count: int) -> None:
    """Refuse a file that answers no question, or other questions in one arm than in another."""
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
                f"{path}: {first} and {arm} answer {len(unshared)} questions that the other does "
                "not, so that they can't be compared; give both the same, or a file of one"
            )


def _said(path: Path, layout: Layout, where: str, row: Record) -> Said:
    """Return what a row says."""
    at = f"{path}, {where}"
    text = _text(at, row, layout)
    key = layouts.key_of(row, layout.id)
    row_id = None if key is None else id_of(value_of(row, layout.id))
    if key is not None and row_id is None:
        raise EvaluationError(
            f"{at}: {key!r} is {value_of(row, layout.id)!r:.60}; a question's id is a whole number "
            "or text: correct it, or name another key with --id-key"
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
    return Said(where, arm, part, row_id, question, picture, answer, _label(row, layout))


def _label(row: Record, layout: Layout) -> str | None:
    """Return what a row has for the right answer; None if that is neither yes nor no."""
    keys = [key for key in (*layout.label, *layouts.LABEL) if key not in layout.answer]
    value = _single(value_of(row, keys))
    said = LABEL_WORDS.get(value, value) if isinstance(value, int) else value
    label = said.strip().lower() if isinstance(said, str) else None
    return label if label in LABEL_WORDS.values() else None


def _picture(value: Any) -> int | str | None:
    """Return a picture's name or number; None if the value has none."""
    value = _single(value)
    if isinstance(value, dict):  # of Hugging Face's data sets
        value = value.get("path")
    name = id_of(value)
    return name if len(str(name)) <= LONGEST_PICTURE else None


def _texts(value: Any) -> list[str]:
    """Return the texts in a value: itself, or those of a dialogue's messages."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for one in inner for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def _single(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _text(at: str, row: Record, layout: Layout) -> str:
    """Return what the model said: text, or a list around one text."""
    value = _single(value_of(row, layout.answer))
    if not isinstance(value, str):
        key = layouts.key_of(row, layout.answer) or layout.answer[0]
        raise EvaluationError(
            f"{at}: {key!r} is {value!r:.60}, not text; name the model's answer with --answer-key "
            f'(the keys there are {", ".join(sorted(row))}), or write it as text, "" if the model '
            "said nothing"
        )
    return value


def _name(at: str, row: Record, keys: Sequence[str]) -> str | None:
    """Return the name of an arm or a part; None if the row has none."""
    value = value_of(row, keys)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise EvaluationError(
            f"{at}: {layouts.key_of(row, keys)!r} is {value!r:.60}; a name is text: correct it or "
            "remove it"
        )
    return str(value).strip()


def _named_arms(
    path: Path, said: Sequence[Said], unnamed: str, *, by_method: bool
) -> tuple[str, dict[str, list[Said]]]:
    """Return the model's name and the rows by arm.

    Exports of this project say model and arm, as "llava-1.5/eah"; other tools name the model, which
    is an arm where a file has several.
    """
    names = dict.fromkeys(one.arm for one in said)
    if None in names and len(names) > 1:
        raise EvaluationError(
            f"{path} says of some answers only which model or method gave them; name it in every "
            "row, or in none"
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
            f"{path} has arms that no folder can be named after: {', '.join(folders)}; rename them"
        )
    found: dict[str, list[Said]] = {}
    for one in said:
        found.setdefault(folders[arms[one.arm]], []).append(one)
    return model, found


def _record_of(path: Path) -> Record | None:
    """Return the settings in the run.json of the run that a file of answers is in."""
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
            "put in order by it; a whole number is needed"
        )
    return number


def _check_once(path: Path, key: str, said: Sequence[Said], order: Sequence[int]) -> None:
    """Refuse rows that are put in order by a number which several have."""
    seen: set[tuple[str | None, str | None, int]] = set()
    for one, number in zip(said, order, strict=True):
        if (one.arm, one.part, number) in seen:
            raise EvaluationError(
                f"{path}, {one.where}: {key} {number} is there a second time; rows without a "
                "question's id are put in order by it: pass the log of one run of one task"
            )
        seen.add((one.arm, one.part, number))


def _first(pair: tuple[int, Said]) -> int:
    return pair[0]


def _arm_of(path: Path) -> str:
    """Return the name of the arm whose folder a file of answers is in; a neutral one elsewhere."""
    info = path.with_name(ARM)
    if path.name == ANSWERS and info.is_file():
        return str(read_json(info).get("name", UNNAMED))
    return UNNAMED
