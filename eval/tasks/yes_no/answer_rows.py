"""Rows of a file of answers, and the questions that they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eval.errors import EvaluationError
from eval.tasks.yes_no.identity import id_of, picture_key, slashes, words

if TYPE_CHECKING:
    from eval.files.answers import Answer, Item


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row of a file of answers.

    Attributes:
        where: Position in the file.
        arm: Arm or model that answered.
        part: Part of the benchmark, or several separated by commas; None if the row has none.
        id: Id of the question; None if the row has none.
        question: Text of the question; None if the row has none.
        picture: Name of the picture; None if the row has none.
        answer: The model's answer, with its further fields in files of this project.
        label: The right answer according to the row; None unless it is yes or no.
    """

    where: str
    arm: str | None
    part: str | None
    id: int | str | None
    question: str | None
    picture: int | str | None
    answer: Answer
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Matching:
    """How rows are matched with questions.

    Attributes:
        partial: Whether questions without an answer are allowed; they are left out.
        by_text: Whether rows are matched by picture and text only, never by id, and answers to
            other questions are left out, because the file may answer another edition of the
            benchmark.
        ignored: Ids of another half of the benchmark, which the same file may answer.
    """

    partial: bool = False
    by_text: bool = False
    ignored: frozenset[int | str] = frozenset()


ONE_TO_ONE: Final = Matching()


def match_by_text(
    what: str, said: Sequence[AnswerRow], items: Sequence[Item]
) -> tuple[list[AnswerRow], list[Item]]:
    """Match rows and questions by picture and text; return the rows and questions that match.

    Raises:
        EvaluationError: If a row has no picture or question, or a question has two rows.
    """
    rows: dict[tuple[str, str], list[AnswerRow]] = {}
    for one in said:
        if one.picture is None or one.question is None:
            raise EvaluationError(
                f"{what}, {one.where} lacks its picture or question, which are needed to match it, "
                "since ids differ between editions; score it as the benchmark that was asked "
                "(--task pope --labels repope)"
            )
        rows.setdefault(_text_key(one.picture, one.question), []).append(one)
    keys = [_text_key(item.image, item.question) for item in items]
    asked = Counter(keys)
    for key, of in rows.items():
        if 0 < asked[key] < len(of):
            raise EvaluationError(
                f"{what}, {of[-1].where} answers the same question as {of[0].where}; remove one"
            )
    found = [(rows[key].pop(0), item)
             for key, item in zip(keys, items, strict=True) if rows.get(key)]  # fmt: skip
    return [one for one, _ in found], [item for _, item in found]


def _text_key(picture: int | str, question: str) -> tuple[str, str]:
    # LLaVA's copy of POPE has a request after the question.
    return picture_key(picture), words(question.partition("?")[0])


def answered_questions(
    what: object, said: Sequence[AnswerRow], items: Sequence[Item], part: str, *, by_id: bool
) -> list[Item]:
    """Return the questions that rows answer, by id, or by picture and text.

    Rows without an id, picture and text must answer all questions in order.
    """
    if by_id:
        ids = {bare_id(one.id, part) for one in said}
        return [item for item in items if bare_id(item.id, "") in ids]
    keys = set(text_keys(what, said, items))
    known = [item for item in items if (item.image, words(item.question)) in keys]
    return known if keys or not said else list(items)


def text_keys(
    what: object, said: Sequence[AnswerRow], items: Sequence[Item]
) -> list[tuple[str, str]]:
    """Return picture and question of the rows that have both, with the questions' picture names.

    Raises:
        EvaluationError: If a row's picture is ambiguous.
    """
    pictures: dict[tuple[str, str], dict[str, None]] = {}
    for item in items:
        of = pictures.setdefault((picture_key(item.image), words(item.question)), {})
        of[item.image] = None
    found = []
    for one in said:
        if one.picture is None or one.question is None:
            continue
        key = picture_key(one.picture), words(one.question)
        images = list(pictures.get(key, ()))
        if len(images) > 1:
            path = _path(one.picture)
            images = [image for image in images if path.endswith(_path(image))]
            if len(images) != 1:
                several = ", ".join(list(pictures[key])[:2])
                raise EvaluationError(
                    f"{what}, {one.where} is about picture {one.picture!r:.200}, which could be "
                    f"any of {several}, and has no question id; name pictures with their folders, "
                    "or give every row an id"
                )
        found.append((images[0] if images else key[0], key[1]))
    return found


def _path(name: int | str) -> str:
    return f"/{slashes(str(name)).casefold()}"


def bare_id(row_id: int | str | None, part: str) -> int | str | None:
    """Return an id for comparison, without the part that exports of this project prepend."""
    if isinstance(row_id, str) and part and row_id.startswith(f"{part}/"):
        row_id = row_id.removeprefix(f"{part}/")
    return id_of(row_id)
