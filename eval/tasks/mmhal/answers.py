"""Answers to the benchmark's questions by arm: from files in its layout, and from run folders."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError, some_ids
from eval.files.rows import read_rows
from eval.files.storage import Record
from eval.run.recorded import read_run
from eval.tasks.mmhal.questions import ANSWER, NAME, Question, image_of, read_questions

TOLD: Final = ("gt_answer", "image_content")  # keys of what the judge is told beside the answer
PREFIX: Final = "answers_"  # of the files that a run's report holds


@dataclass(frozen=True, slots=True)
class Answers:
    """One arm's answers by the place of the question; a question without one is not there."""

    name: str
    texts: dict[int, str]
    source: str

    def hash(self) -> str:
        """Return the SHA-256 of places and answers, whatever file they came from."""
        return hashlib.sha256(json.dumps(sorted(self.texts.items())).encode()).hexdigest()


def read_arms(
    paths: Sequence[Path], questions_file: Path | None
) -> tuple[list[Question], list[Answers]]:
    """Return the questions, and the arms of all files and run folders.

    Args:
        paths: Files in the benchmark's layout, and run folders of the task.
        questions_file: The question file; None to take the questions of the first file.
    Raises:
        EvaluationError: If something can't be read, or an answer belongs to no question.
    """
    folders = [path for path in paths if path.is_dir()]
    if questions_file is None and folders:
        raise EvaluationError(
            f"{folders[0]} is a run folder, which holds no reference answers: pass --questions "
            "with the question file that the run was made with"
        )
    base = questions_file or paths[0]
    questions = read_questions(base)
    typed = questions[0].record.get("question_type") is not None
    by_place = questions_file is None and not typed
    arms: list[Answers] = []
    for path in paths:
        if path in folders:
            arms += _of_run(path, questions, base)
        else:
            arms.append(_of_file(path, questions, base, by_place=by_place))
    for arm in arms:
        if not any(text.strip() for text in arm.texts.values()):
            raise EvaluationError(
                f"{arm.source} holds no answers, every {ANSWER} is empty; is it the question file?"
            )
    return questions, _named(arms)


def _of_file(path: Path, questions: Sequence[Question], base: Path, *, by_place: bool) -> Answers:
    rows = read_rows(path).rows
    by_key = {one.key: one.position for one in questions}
    named = all(image_of(row) for _, row in rows) and all(one.image for one in questions)
    if not named and len(rows) != len(questions):
        raise EvaluationError(
            f"{path} has {len(rows)} rows and {base} {len(questions)}; rows that name no picture "
            "(image_src) are taken by their place, so that all have to be there in one order"
        )
    texts: dict[int, str] = {}
    for at, (where, row) in enumerate(rows):
        asked = row.get("question")
        if named:
            place = by_key.get((image_of(row), asked if isinstance(asked, str) else ""))
        else:
            place = at if asked == questions[at].text else None
        if place is None:
            raise EvaluationError(
                f"{path}, {where}: {base} does not ask {asked!r:.60} about "
                f"{image_of(row) or 'the picture at this place'}; all files have to answer the "
                "same questions, those without picture names in the same order"
            )
        if place != at and by_place:
            raise EvaluationError(
                f"{path}, {where} stands in row {place + 1} of {base}, and neither file has "
                "question_type: types follow from the place then; pass --questions with the "
                "benchmark's file, which has the right order"
            )
        for name in TOLD:
            if row.get(name) not in (None, questions[place].record[name]):
                raise EvaluationError(
                    f"{path}, {where} has another {name} than {base}; the judge is told the same "
                    "of all arms: pass the right question file as --questions"
                )
        if (text := _answer(row, f"{path}, {where}")) is None:
            continue
        if place in texts:
            raise EvaluationError(
                f"{path}, {where} answers question {place + 1} again; remove one of the rows"
            )
        texts[place] = text
    return Answers(path.stem.removeprefix(PREFIX), dict(sorted(texts.items())), str(path))


def _answer(row: Record, where: str) -> str | None:
    """Return a row's answer; None where it says that there is none."""
    if ANSWER not in row:
        raise EvaluationError(f"{where} has no {ANSWER!r}; answers are read from there")
    text = row[ANSWER]
    if text is not None and not isinstance(text, str):
        raise EvaluationError(f"{where}: {ANSWER} is {text!r:.40}; a text or null is needed")
    return text


def _of_run(path: Path, questions: Sequence[Question], base: Path) -> list[Answers]:
    run = read_run(path)
    run.check_answered()
    if run.task != NAME:
        raise EvaluationError(f"{path} holds answers to {run.task}, not to {NAME}")
    finished = run.answers()
    for name in (name for name in run.arms if name not in finished):
        print(f"note: arm {name} of {path} is unfinished, and not judged", file=sys.stderr)
    found = []
    known = {(one.position, *one.key) for one in questions}
    for name, answers in finished.items():
        items = [answer.item for answer in answers]
        other = [one.id for one in items if (one.id, one.image, one.question) not in known]
        if other:
            raise EvaluationError(
                f"{len(other)} questions of {path} are not those of {base} (places, from 0: "
                f"{some_ids(other)}); pass the file that the run was made with as --questions"
            )
        texts = {int(answer.item.id): answer.text for answer in answers}
        found.append(Answers(name, dict(sorted(texts.items())), str(path)))
    return found


def _named(arms: Sequence[Answers]) -> list[Answers]:
    """Return the arms with the source in the names that several have.

    Raises:
        EvaluationError: If two are one arm of one source.
    """
    names = [arm.name for arm in arms]
    found = [
        replace(arm, name=f"{arm.source}:{arm.name}") if names.count(arm.name) > 1 else arm
        for arm in arms
    ]
    for at, arm in enumerate(found):
        if arm.name in [other.name for other in found[:at]]:
            raise EvaluationError(f"--answers names {arm.source} twice; name each once")
    return found
