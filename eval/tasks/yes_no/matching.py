"""Match rows of answers with questions, so that each question gets exactly its own answer."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.tasks.yes_no.answer_rows import (
    ONE_TO_ONE,
    AnswerRow,
    Matching,
    answered_questions,
    bare_id,
    match_by_text,
    text_keys,
)
from eval.tasks.yes_no.identity import asks, same_picture, words

SHOWN_PARTS: Final = 5


def match(
    path: Path,
    said: Sequence[AnswerRow],
    items: Sequence[Item],
    others: Counter[str],
    rule: Matching = ONE_TO_ONE,
) -> list[Answer]:
    """Return the answers of one arm in the order of the questions.

    Args:
        path: The file or run folder, for error messages.
        said: The rows of the arm.
        items: The questions.
        others: Counter that gets the number of rows of other parts.
        rule: How rows are matched with questions.
    Raises:
        EvaluationError: If rows and questions don't match one to one, or a row is about another
            question or picture.
    """
    if _is_one_part(said, items):
        return _match_part(path, said, items, rule)
    parts: dict[str, list[Item]] = {}
    for item in items:
        parts.setdefault(item.part, []).append(item)
    rows = _group_by_part(path, said, list(parts), others)
    for part, of in rows.items():
        if not of and others and not rule.partial:
            raise EvaluationError(
                f"{path} has no answers to {part}, only to {rows_of_parts(others)}; pass the "
                "--pope-type or --part that was asked, or rename that key if it has another meaning"
            )
    found = [_match_part(path, rows[part], asked, rule) for part, asked in parts.items()]
    return [answer for of in found for answer in of]


def _is_one_part(said: Sequence[AnswerRow], items: Sequence[Item]) -> bool:
    """Return whether ids identify the questions: they are unique, and no row names a part."""
    ids = {item.id for item in items}
    by_id = len(ids) == len(items) and all(one.id is not None for one in said)
    return by_id and len({item.part for item in items}) > 1 and not any(one.part for one in said)


def _group_by_part(
    path: Path, said: Sequence[AnswerRow], parts: Sequence[str], others: Counter[str]
) -> dict[str, list[AnswerRow]]:
    """Return the rows of each part of the questions, and count the rows of other parts."""
    found: dict[str, list[AnswerRow]] = {part: [] for part in parts}
    known = {part.casefold(): part for part in parts}
    named = [_parts_of(one, known) for one in said]
    if not all(named) and (any(named) or len(parts) > 1):
        what = "some answers" if any(named) else "the answers"
        raise EvaluationError(
            f"{path} does not name the part of {what} ({', '.join(parts)}); pass one --pope-type "
            "or --part with a file of its answers only, or name the part in every row"
        )
    for one, names in zip(said, named, strict=True):
        for name in names or parts:
            if name.casefold() in known:
                found[known[name.casefold()]].append(one)
            else:
                others[name] += 1
    return found


def _parts_of(one: AnswerRow, known: Mapping[str, str]) -> list[str]:
    """Return the parts of a row, from its part or from a prefix of its id."""
    if one.part is not None:
        return [name.strip() for name in one.part.split(",") if name.strip()]
    head, slash, _ = str(one.id).partition("/")
    return [head] if slash and head.casefold() in known else []


def _match_part(
    path: Path, said: Sequence[AnswerRow], items: Sequence[Item], rule: Matching
) -> list[Answer]:
    """Return the answers to the questions of one part, or of all parts, in their order."""
    part = items[0].part if len({item.part for item in items}) == 1 else ""
    of = f" of {said[0].arm}" if said and said[0].arm else ""
    what = f"{path}: the answers{of} to {part}" if part else f"{path}{of}"
    if rule.by_text:
        said, items = match_by_text(what, said, items)
    with_id = [one for one in said if one.id is not None and not rule.by_text]
    if with_id and len(with_id) < len(said):
        bare = next(one for one in said if one.id is None)
        raise EvaluationError(
            f"{path}, {bare.where} has no question id, but {len(with_id)} of {len(said)} rows have "
            "one; give every row an id, or none"
        )
    if rule.partial and not rule.by_text:  # by_text has already dropped unanswered questions
        items = answered_questions(path, said, items, part, by_id=bool(with_id))
    in_order = bool(said) and not with_id
    ordered = _match_without_ids(path, said, items) if in_order else _match_by_id(what, said, items)
    for one, item in zip(ordered, items, strict=True):
        _check_same_question(path, one, item)
    _note_labels(path, ordered, items)
    return [replace(one.answer, item=item) for one, item in zip(ordered, items, strict=True)]


def _match_by_id(what: str, said: Sequence[AnswerRow], items: Sequence[Item]) -> list[AnswerRow]:
    """Return the row of each question by its id.

    Raises:
        EvaluationError: If they don't match one to one.
    """
    part = items[0].part if items else ""
    ids = [bare_id(one.id, part) for one in said]
    expected = [bare_id(item.id, "") for item in items]
    doubled = [row_id for row_id, count in Counter(ids).items() if count > 1]
    pass_file = "pass the question file that the answers were made from"
    for problem, found, advice in (
        ("answers question_id {} more than once", doubled, pass_file),
        (
            "has no answer to question_id {}",
            _missing_from(expected, ids),
            f"{pass_file}, or --partial to score only the answered questions",
        ),
        (
            "answers question_id {}, which the question file does not have",
            _missing_from(ids, expected),
            pass_file,
        ),
    ):
        if found:
            raise EvaluationError(
                f"{what}: {problem.format(str(found[0])[:60])} ({len(found)} in total); {advice}"
            )
    rows = dict(zip(ids, said, strict=True))
    return [rows[row_id] for row_id in expected]


def _match_without_ids(
    path: Path, said: Sequence[AnswerRow], items: Sequence[Item]
) -> list[AnswerRow]:
    """Match rows without ids: by picture and question if all rows have both, otherwise in order."""
    keys = text_keys(path, said, items)
    wanted = [(item.image, words(item.question)) for item in items]
    if sorted(keys) == sorted(wanted) and len(keys) == len(said):
        rows: dict[tuple[str, str], list[AnswerRow]] = {}
        for key, one in zip(keys, said, strict=True):
            rows.setdefault(key, []).append(one)
        return [rows[key].pop(0) for key in wanted]  # duplicate questions are matched in order
    if len(said) != len(items):
        raise EvaluationError(
            f"{path} has {len(said)} answers without question_id, but there are {len(items)} "
            "questions; they must match in order: pass the question file that they were made from"
        )
    return list(said)


def _check_same_question(path: Path, one: AnswerRow, item: Item) -> None:
    """Refuse a row that is about another question or picture than the one it was matched with.

    Raises:
        EvaluationError: Naming both.
    """
    at = f"{path}, {one.where}" if one.where else str(path)
    if one.question is not None and not asks(one.question, item.question):
        raise EvaluationError(
            f"{at} answers {one.question!r:.200}, but question {item.id} is {item.question!r}; "
            "pass the question file that the answers were made from, and the same --pope-type or "
            "--part"
        )
    if one.picture is not None and not same_picture(one.picture, item.image):
        raise EvaluationError(
            f"{at} is about picture {one.picture!r:.200}, but question {item.id} is about "
            f"{item.image!r}; pass the question file that the answers were made from, and the same "
            "--pope-type or --part"
        )


def _note_labels(path: Path, said: Sequence[AnswerRow], items: Sequence[Item]) -> None:
    """Note how many rows have another label than their question; the question's label counts."""
    other = [(one, item) for one, item in zip(said, items, strict=True)
             if one.label is not None and item.label and one.label != item.label]  # fmt: skip
    if other:
        one, item = other[0]
        print(
            f"note: {len(other)} of {len(items)} rows of {path.name} have another label than the "
            f"question file; the first is {one.where} ({one.label!r}, but {item.label!r} in the "
            "question file); the numbers use the question file's labels",
            file=sys.stderr,
        )


def check_recorded(path: Path, answers: Iterable[Answer], items: Sequence[Item]) -> None:
    """Refuse the answers of a run folder if its questions differ from the given ones.

    Raises:
        EvaluationError: If they differ, naming the first.
    """
    asked = {item.part for item in items}
    recorded = [answer for answer in answers if answer.item.part in asked]
    labels = {answer.item.key: answer.item.label for answer in recorded}
    for item in (one.item for one in match(path, list(map(_row_of, recorded)), items, Counter())):
        if labels.get(item.key, item.label) != item.label:
            raise EvaluationError(
                f"{path}: question {item.id} is recorded with the label {labels[item.key]!r}, but "
                f"it is {item.label!r} in the question file; pass the question file of the run"
            )


def rows_of_parts(counts: Mapping[str, int]) -> str:
    """Return the number of rows by part, as text."""
    first = [f"{part:.40} ({count} rows)" for part, count in list(counts.items())[:SHOWN_PARTS]]
    more = sum(list(counts.values())[SHOWN_PARTS:])
    return ", ".join([*first, *([f"others ({more} rows)"] if more else [])])


def _row_of(answer: Answer) -> AnswerRow:
    item = answer.item
    return AnswerRow("", None, item.part or None, item.id, item.question, item.image, answer)


def _missing_from(these: Iterable[Any], those: Iterable[Any]) -> list[Any]:
    known = set(those)
    return [item for item in these if item not in known]
