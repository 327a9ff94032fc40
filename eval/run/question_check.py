"""Check that recorded answers still name the questions, pictures and labels of their run.

run.json contains a hash of them. So a label that was edited in an answers file is detected even
without the question file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item, Key
from eval.run.arm_folder import ANSWERS, ArmFolder
from eval.run.folder import RUN, questions_record

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun


def check_questions(run: RecordedRun, text_of: Callable[[Item], str]) -> None:
    """Check the finished arms of a run, except in runs of version 0.1, whose hashes differ.

    Args:
        run: The run.
        text_of: Returns the text that was sent to the model.
    Raises:
        EvaluationError: Naming the first changed line, or that lines were changed in all arms.
    """
    asked = run.settings.get("questions")
    arms = {name: arm.answers for name, arm in run.finished().items()}
    if run.old or not asked or not arms:
        return
    whole = [name for name, answers in arms.items() if _is_asked(answers, asked, text_of)]
    first = whole[0] if whole else next(iter(arms))
    items = {answer.item.key: answer.item for answer in arms[first]}
    for name, answers in arms.items():
        if name not in whole:
            _compare(run, name, answers, items, first)
    if not whole:
        raise EvaluationError(
            f"{run.path}: questions, pictures or labels of the answers do not match the hash in "
            f"{RUN}; lines were changed in all arms, or the run is unfinished: copy the old files "
            "back, or run the command that made them again"
        )


def _is_asked(
    answers: Sequence[Answer], asked: Mapping[str, Any], text_of: Callable[[Item], str]
) -> bool:
    """Return whether answers match the questions; a new arm may have them in another order."""
    items = [answer.item for answer in answers]
    hashes = {part: of.get("sha256") for part, of in asked.items()}
    return any(hashes == _hashes(order, text_of) for order in (items, sorted(items, key=_by_id)))


def _hashes(items: Iterable[Item], text_of: Callable[[Item], str]) -> dict[str, str]:
    found = questions_record((item, text_of(item)) for item in items)
    return {part: of["sha256"] for part, of in found.items()}


def _by_id(item: Item) -> tuple[bool, int | str]:
    return isinstance(item.id, str), item.id


def _compare(
    run: RecordedRun, name: str, answers: Sequence[Answer], items: Mapping[Key, Item], first: str
) -> None:
    for at, answer in enumerate(answers, start=1):
        if (other := items.get(answer.item.key)) != answer.item:
            path = ArmFolder(run.path, name).path / ANSWERS
            raise EvaluationError(
                f"{path}, answer {at} is to {answer.item}, but arm {first} was asked "
                f"{other or 'no such question'}; one of the files was changed: restore it, or ask "
                "again with --fresh"
            )
