"""Read answers to the benchmark's questions by arm, from files in its layout and run folders."""

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

JUDGE_KEYS: Final = ("gt_answer", "image_content")  # keys that the judge gets besides the answer
PREFIX: Final = "answers_"  # of the files in a run's report


@dataclass(frozen=True, slots=True)
class Answers:
    """One arm's answers by the index of the question; unanswered questions are left out."""

    name: str
    texts: dict[int, str]
    source: str

    def hash(self) -> str:
        """Return the SHA-256 of indices and answers, which does not depend on the file."""
        return hashlib.sha256(json.dumps(sorted(self.texts.items())).encode()).hexdigest()


def read_arms(
    paths: Sequence[Path], questions_file: Path | None
) -> tuple[list[Question], list[Answers]]:
    """Read the questions, and the arms of all files and run folders.

    Args:
        paths: Files in the benchmark's layout, and run folders of the task.
        questions_file: The question file; None to take the questions of the first file.
    Raises:
        EvaluationError: If something can't be read, or an answer does not match a question.
    """
    folders = [path for path in paths if path.is_dir()]
    if questions_file is None and folders:
        raise EvaluationError(
            f"{folders[0]} is a run folder, which has no reference answers: pass the question file "
            "of the run as --questions"
        )
    base = questions_file or paths[0]
    questions = read_questions(base)
    typed = questions[0].record.get("question_type") is not None
    by_place = questions_file is None and not typed
    arms: list[Answers] = []
    for path in paths:
        if path in folders:
            arms += _read_run(path, questions, base)
        else:
            arms.append(_read_file(path, questions, base, by_place=by_place))
    for arm in arms:
        if not any(text.strip() for text in arm.texts.values()):
            raise EvaluationError(
                f"{arm.source} has no answers, every {ANSWER} is empty; pass a file of answers, "
                "not the question file"
            )
    return questions, _name_uniquely(arms)


def _read_file(path: Path, questions: Sequence[Question], base: Path, *, by_place: bool) -> Answers:
    rows = read_rows(path).rows
    by_key = {one.key: one.position for one in questions}
    named = all(image_of(row) for _, row in rows) and all(one.image for one in questions)
    if not named and len(rows) != len(questions):
        raise EvaluationError(
            f"{path} has {len(rows)} rows, but {base} has {len(questions)}; rows without a picture "
            "(image_src) are matched by their order, so both files need the same rows"
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
                f"{image_of(row) or 'the picture of this row'}; all files must answer the same "
                "questions, in the same order if they have no picture names"
            )
        if place != at and by_place:
            raise EvaluationError(
                f"{path}, {where} is row {place + 1} of {base}, and neither file has "
                "question_type, so types depend on the order of the rows; pass the benchmark's "
                "file, which has the right order, as --questions"
            )
        for name in JUDGE_KEYS:
            if row.get(name) not in (None, questions[place].record[name]):
                raise EvaluationError(
                    f"{path}, {where} has another {name} than {base}, but the judge must get the "
                    "same for all arms: pass the right question file as --questions"
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
    """Return a row's answer; None if it is null."""
    if ANSWER not in row:
        raise EvaluationError(f"{where} has no {ANSWER!r}; write the answer, or null, to this key")
    text = row[ANSWER]
    if text is not None and not isinstance(text, str):
        raise EvaluationError(f"{where}: {ANSWER} is {text!r:.40}; text or null is needed")
    return text


def _read_run(path: Path, questions: Sequence[Question], base: Path) -> list[Answers]:
    run = read_run(path)
    run.check_answered()
    if run.task != NAME:
        raise EvaluationError(
            f"{path} has answers to {run.task}, not to {NAME}; pass a run of {NAME}"
        )
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
                f"{len(other)} questions of {path} differ from those of {base} (indices from 0: "
                f"{some_ids(other)}); pass the question file of the run as --questions"
            )
        texts = {int(answer.item.id): answer.text for answer in answers}
        found.append(Answers(name, dict(sorted(texts.items())), str(path)))
    return found


def _name_uniquely(arms: Sequence[Answers]) -> list[Answers]:
    """Return the arms; if several have the same name, add their source to it.

    Raises:
        EvaluationError: If an arm of a source is named twice.
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
