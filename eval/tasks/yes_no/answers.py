"""Read saved answers, of this project or of another tool, and match them with the questions."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from eval.tasks.yes_no.identity import asks, id_of, picture_key, same_picture, words
from eval.tasks.yes_no.layouts import Layout, layout_of, value_of
from models.settings import available

UNNAMED: Final = "answers"
MADE: Final = ("model", "family", "protocol")  # what run.json says of answers of this project
METHOD: Final = "method"
LONGEST_PICTURE: Final = 500  # a longer text is the picture itself, as VLMEvalKit has it


@dataclass(frozen=True, slots=True)
class Said:
    """One row of a file of answers.

    Attributes:
        where: Where it stands.
        arm: Who answered.
        part: Part of the benchmark, or several with commas between; None if the row has none.
        id: The question's; None if the row has none.
        question: What was asked; None if the row does not have it.
        picture: Name of the picture; None if the row does not have it.
        answer: What the model said, with what else an answer of ours holds.
    """

    where: str
    arm: str | None
    part: str | None
    id: int | str | None
    question: str | None
    picture: int | str | None
    answer: Answer


def read_answers(
    path: Path,
    items: Sequence[Item],
    *,
    answer_key: str | None = None,
    id_key: str | None = None,
) -> SavedAnswers:
    """Read a file of answers and return them by arm, in the order of the questions.

    Args:
        path: JSON lines, a JSON list, CSV or TSV, of any tool in `layouts.LAYOUTS` or with keys
            that are given.
        items: The questions.
        answer_key: Key that holds what the model said; None to find it.
        id_key: Key that holds the question's id; None to find it.
    Raises:
        EvaluationError: If the answers don't match the questions one to one.
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
    if layout.order and all(one.id is None for one in said):
        order = [value_of(row, (layout.order,)) for _, row in rows]
        said = [one for _, one in sorted(zip(map(_number, order), said, strict=True), key=_first)]
    by_method = any(METHOD in row for _, row in rows)
    model, named = _named_arms(path, said, _arm_of(path), by_method=by_method)
    others: Counter[str] = Counter()
    arms = {arm: _match(path, of, items, others) for arm, of in named.items()}
    if others:
        rows_of = ", ".join(f"{part} ({count} rows)" for part, count in others.items())
        print(
            f"note: {path.name} has answers to parts that are not asked for and not scored: "
            f"{rows_of}; --pope-type names the parts to score",
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


def check_recorded(path: Path, answers: Iterable[Answer], items: Sequence[Item]) -> None:
    """Refuse the answers of a run folder whose questions are others than those of question files.

    Raises:
        EvaluationError: Naming the first that differs.
    """
    asked = {item.part for item in items}
    recorded = [answer for answer in answers if answer.item.part in asked]
    labels = {answer.item.key: answer.item.label for answer in recorded}
    for item in (one.item for one in _match(path, list(map(_of_ours, recorded)), items, Counter())):
        if labels.get(item.key, item.label) != item.label:
            raise EvaluationError(
                f"{path}: question {item.id} is recorded with the label {labels[item.key]!r}, but "
                f"it is {item.label!r} in the question file; pass the file that was asked"
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
    question = value_of(row, layout.question)
    picture = value_of(row, layouts.PICTURE)
    if type(picture) not in (int, str) or not 0 < len(str(picture)) <= LONGEST_PICTURE:
        picture = None
    answer = Answer(Item(0, "", ""), text)
    if layout is layouts.LAYOUTS[0]:
        answer = answer_of(row, at)
    asked = question if isinstance(question, str) else None
    return Said(where, arm, part, row_id, asked, picture, answer)


def _of_ours(answer: Answer) -> Said:
    item = answer.item
    return Said("", None, item.part or None, item.id, item.question, item.image, answer)


def _text(at: str, row: Record, layout: Layout) -> str:
    """Return what the model said: text, or a list around one text."""
    value = value_of(row, layout.answer)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        key = layouts.key_of(row, layout.answer) or layout.answer[0]
        raise EvaluationError(
            f"{at}: {key!r} is {value!r:.60}, not text; the keys there are "
            f"{', '.join(sorted(row))}: name the model's answer with --answer-key"
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
    if len(heads) == 1 and heads <= set(available()):
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


def _match(
    path: Path, said: Sequence[Said], items: Sequence[Item], others: Counter[str]
) -> list[Answer]:
    """Return the answers of one arm in the order of the questions, and count those of others."""
    parts: dict[str, list[Item]] = {}
    for item in items:
        parts.setdefault(item.part, []).append(item)
    rows = _by_part(path, said, list(parts), others)
    return [
        answer for part, asked in parts.items() for answer in _match_part(path, rows[part], asked)
    ]


def _by_part(
    path: Path, said: Sequence[Said], parts: Sequence[str], others: Counter[str]
) -> dict[str, list[Said]]:
    """Return the rows of each part that is asked, and count those of others."""
    found: dict[str, list[Said]] = {part: [] for part in parts}
    known = {part.casefold(): part for part in parts}
    named = [_parts_of(one, known) for one in said]
    if not all(named) and (any(named) or len(parts) > 1):
        what = "some answers" if any(named) else "the answers"
        raise EvaluationError(
            f"{path} does not say which part {what} are of ({', '.join(parts)}); "
            "give one --pope-type and the answers to it alone, or name the part in every row"
        )
    for one, names in zip(said, named, strict=True):
        for name in names or parts:
            if name.casefold() in known:
                found[known[name.casefold()]].append(one)
            else:
                others[name] += 1
    return found


def _parts_of(one: Said, known: Mapping[str, str]) -> list[str]:
    """Return the parts that a row is of: named, or before its id as exports of ours have it."""
    if one.part is not None:
        return [name.strip() for name in one.part.split(",") if name.strip()]
    head, slash, _ = str(one.id).partition("/")
    return [head] if slash and head.casefold() in known else []


def _match_part(path: Path, said: Sequence[Said], items: Sequence[Item]) -> list[Answer]:
    """Return the answers to the questions of one part, in their order."""
    part = items[0].part
    what = f"{path}: the answers to {part}" if part else str(path)
    with_id = [one for one in said if one.id is not None]
    if with_id and len(with_id) < len(said):
        bare = next(one for one in said if one.id is None)
        raise EvaluationError(
            f"{path}, {bare.where} has no question id, but others have one ({len(said)} rows, "
            f"{len(with_id)} with an id); give every row an id, or none"
        )
    in_order = bool(said) and not with_id
    ordered = _without_ids(path, said, items) if in_order else _by_id(what, said, items)
    for one, item in zip(ordered, items, strict=True):
        _check_same(path, one, item)
    return [replace(one.answer, item=item) for one, item in zip(ordered, items, strict=True)]


def _by_id(what: str, said: Sequence[Said], items: Sequence[Item]) -> list[Said]:
    """Return the row of each question by its id.

    Raises:
        EvaluationError: If they don't match one to one.
    """
    part = items[0].part
    ids = [_bare_id(one.id, part) for one in said]
    expected = [_bare_id(item.id, "") for item in items]
    doubled = [row_id for row_id, count in Counter(ids).items() if count > 1]
    for problem, found in (
        ("answers question_id {} more than once", doubled),
        ("has no answer to question_id {}", _without(expected, ids)),
        ("answers question_id {}, which the question file does not have", _without(ids, expected)),
    ):
        if found:
            raise EvaluationError(
                f"{what}: {problem.format(found[0])} ({len(found)} such); "
                "pass the question file that the answers were made from"
            )
    rows = dict(zip(ids, said, strict=True))
    return [rows[row_id] for row_id in expected]


def _bare_id(row_id: int | str | None, part: str) -> int | str | None:
    """Return an id as it is compared, without the part that exports of ours put before it."""
    if isinstance(row_id, str) and part and row_id.startswith(f"{part}/"):
        row_id = row_id.removeprefix(f"{part}/")
    return id_of(row_id)


def _without_ids(path: Path, said: Sequence[Said], items: Sequence[Item]) -> list[Said]:
    """Match rows without ids: by picture and question where both are there, else in order."""
    keys = [(picture_key(one.picture), words(one.question))
            for one in said if one.picture is not None and one.question is not None]  # fmt: skip
    wanted = [(picture_key(item.image), words(item.question)) for item in items]
    if sorted(keys) == sorted(wanted) and len(set(keys)) == len(said):
        rows = dict(zip(keys, said, strict=True))
        return [rows[key] for key in wanted]
    if len(said) != len(items):
        raise EvaluationError(
            f"{path} holds {len(said)} answers without question_id, but there are {len(items)} "
            "questions; they must match in order: pass the question file that they were made from"
        )
    return list(said)


def _check_same(path: Path, one: Said, item: Item) -> None:
    """Refuse a row that is about another question or picture than the one it was matched with.

    Raises:
        EvaluationError: Naming both.
    """
    at = f"{path}, {one.where}" if one.where else str(path)
    if one.question is not None and not asks(one.question, item.question):
        raise EvaluationError(
            f"{at} is to {one.question!r:.200}, but question {item.id} is {item.question!r}; pass "
            "the question file that the answers were made from, and the same --pope-type"
        )
    if one.picture is not None and not same_picture(one.picture, item.image):
        raise EvaluationError(
            f"{at} is about picture {one.picture!r:.200}, but question {item.id} is about "
            f"{item.image!r}; pass the question file that the answers were made from, and the same "
            "--pope-type"
        )


def _record_of(path: Path) -> Record | None:
    """Return the settings in the run.json of the run that a file of answers is in."""
    depth = {ANSWERS: 2, OLD_ANSWERS: 0}.get(path.name)
    if depth is None or len(path.parents) <= depth:
        return None
    folder = path.resolve().parents[depth]
    if not (folder / RUN).is_file() or (depth and not path.with_name(ARM).is_file()):
        return None
    settings = read_json(folder / RUN).get("settings")
    return settings if isinstance(settings, dict) else None


def _number(value: Any) -> float:
    number = id_of(value)
    return float(number) if isinstance(number, int) else float("inf")


def _first(pair: tuple[float, Said]) -> float:
    return pair[0]


def _without(these: Iterable[Any], those: Iterable[Any]) -> list[Any]:
    known = set(those)
    return [item for item in these if item not in known]


def _arm_of(path: Path) -> str:
    """Return the name of the arm whose folder a file of answers is in; a neutral one elsewhere."""
    info = path.with_name(ARM)
    if path.name == ANSWERS and info.is_file():
        return str(read_json(info).get("name", UNNAMED))
    return UNNAMED
