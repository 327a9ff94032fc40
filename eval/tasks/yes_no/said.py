"""A row of a file of answers, and which questions a file is about."""

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
        label: What the row has for the right answer; None if it has none that is yes or no.
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
    """What rows and questions have in common.

    Attributes:
        partial: Whether questions may be without an answer; they are left out.
        by_text: Whether questions are found by picture and text alone, never by id, and answers to
            other questions are left out: the file answers another edition of the benchmark.
        ignored: Ids of another half of the benchmark, which the same file may answer.
    """

    partial: bool = False
    by_text: bool = False
    ignored: frozenset[int | str] = frozenset()


ONE_TO_ONE: Final = Matching()


def by_text(
    what: str, said: Sequence[Said], items: Sequence[Item]
) -> tuple[list[Said], list[Item]]:
    """Return the rows about questions that there are, and the questions that have one.

    Raises:
        EvaluationError: If a row does not say what it is about, or a question has two.
    """
    rows: dict[tuple[str, str], list[Said]] = {}
    for one in said:
        if one.picture is None or one.question is None:
            raise EvaluationError(
                f"{what}, {one.where} does not say its picture and question, by which these "
                "questions are found, since ids number others; score it as the benchmark that was "
                "asked (--task pope --labels repope)"
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
    # LLaVA's copy of POPE has a request behind the question.
    return picture_key(picture), words(question.partition("?")[0])


def answered(
    what: object, said: Sequence[Said], items: Sequence[Item], part: str, *, by_id: bool
) -> list[Item]:
    """Return the questions that rows answer, by id, else by picture and text where all have both.

    Rows in the order of the questions, without either, have to answer all.
    """
    if by_id:
        ids = {bare_id(one.id, part) for one in said}
        return [item for item in items if bare_id(item.id, "") in ids]
    keys = set(text_keys(what, said, items))
    known = [item for item in items if (item.image, words(item.question)) in keys]
    return known if keys or not said else list(items)


def text_keys(what: object, said: Sequence[Said], items: Sequence[Item]) -> list[tuple[str, str]]:
    """Return picture and question of the rows that have both, pictures as the questions name them.

    Raises:
        EvaluationError: If a row's picture could be several that the same is asked about.
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
                    f"{what}, {one.where} is about picture {one.picture!r:.200}, which may be any "
                    f"of {several}, and has no question id; name pictures with their folders, or "
                    "give every row an id"
                )
        found.append((images[0] if images else key[0], key[1]))
    return found


def _path(name: int | str) -> str:
    return f"/{slashes(str(name)).casefold()}"


def bare_id(row_id: int | str | None, part: str) -> int | str | None:
    """Return an id as it is compared, without the part that exports of ours put before it."""
    if isinstance(row_id, str) and part and row_id.startswith(f"{part}/"):
        row_id = row_id.removeprefix(f"{part}/")
    return id_of(row_id)
