"""An arm's folder in a run: its answers, their settings and code, and their cost.

    arms/eah@layers=2/arm.json        settings, code, versions, weights, batch sizes
    arms/eah@layers=2/answers.jsonl   one line per answer, appended batch by batch
    arms/eah@layers=2/costs.jsonl     one line per batch

Complete answers are sorted in the order of the questions, and not changed afterwards.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer, Key, answer_of
from eval.files.storage import AppendedLines, read_json, write_json
from eval.files.typed import row_of
from eval.files.writing import write_errors
from eval.run.costs import BatchCost
from eval.run.records import ASK_AGAIN, check_arm

ARMS: Final = "arms"
ARM: Final = "arm.json"
ANSWERS: Final = "answers.jsonl"
COSTS: Final = "costs.jsonl"
SET_ASIDE: Final = "set_aside"
LONGEST_NAME: Final = 120


class ArmFolder:
    """The folder of one arm.

    Attributes:
        name: The arm's.
        path: The folder.
    """

    def __init__(self, run: Path, name: str, process: int | None = None) -> None:
        """Set the folder's path; nothing is written yet.

        Args:
            run: The run's folder.
            name: The arm's name.
            process: This process's number among several; None for the only one.
        """
        self.name = name
        self.path = run / ARMS / _folder_name(name)
        self._answers = AppendedLines(self.path / ANSWERS, process)
        self._costs = AppendedLines(self.path / COSTS, process)

    def info(self) -> dict[str, Any] | None:
        """Return the content of arm.json; None for an arm that was never asked."""
        path = self.path / ARM
        return _read_info(path) if path.is_file() else None

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write arm.json."""
        with write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / ARM, info)

    def answers(self) -> dict[Key, Answer]:
        """Return the recorded answers of all processes by question.

        If several processes answered the same question, the first answer counts.

        Raises:
            EvaluationError: If a line is damaged, or a process answered a question twice.
        """
        found: dict[Key, Answer] = {}
        for part in self._answers.read_parts():
            where = f"{self.path / ANSWERS}, answer"
            answers = [answer_of(one, f"{where} {at}") for at, one in enumerate(part, start=1)]
            by_key = {answer.item.key: answer for answer in answers}
            if len(by_key) < len(answers):
                twice = next(k for k, n in Counter(a.item.key for a in answers).items() if n > 1)
                raise EvaluationError(
                    f"{self.path / ANSWERS} answers question {twice} twice; delete one of the lines"
                )
            found |= {key: answer for key, answer in by_key.items() if key not in found}
        return found

    def costs(self) -> list[BatchCost]:
        """Return the costs of the recorded batches."""
        try:
            return [row_of(BatchCost, record, f"batch {at}") for at, record in
                    enumerate(self._costs.read(), start=1)]  # fmt: skip
        except TypeError as error:
            raise EvaluationError(
                f"{self.path / COSTS} is damaged ({error}); delete it, it contains only costs"
            ) from error

    def append(self, answers: Sequence[Answer]) -> None:
        """Record answers."""
        self._answers.append(answer.as_record() for answer in answers)

    def append_cost(self, cost: BatchCost) -> None:
        """Record the cost of a batch."""
        self._costs.append([asdict(cost)])

    def finish(self, answers: Sequence[Answer]) -> None:
        """Put all answers into one file, in the order of the questions."""
        self._answers.join(answer.as_record() for answer in answers)
        self._costs.join(asdict(cost) for cost in self.costs())

    @property
    def in_parts(self) -> bool:
        """Whether the answers are still in separate files of several processes."""
        return self._answers.parts() not in ([], [self._answers.path])

    def set_aside(self) -> Path | None:
        """Move the folder aside and return its new path; None if there is none."""
        if not self.path.exists():
            return None
        aside = self.path.parents[1] / SET_ASIDE
        number = 1
        while (target := aside / f"{self.path.name}-{number}").exists():
            number += 1
        with write_errors(target):
            aside.mkdir(exist_ok=True)
            self.path.rename(target)
        return target


def arm_names(run: Path) -> list[str]:
    """Return the arms of a run folder in the order in which they were started, baseline first.

    Raises:
        EvaluationError: If a folder is damaged or a copy, or does not name its arm.
    """
    infos = []
    for folder in sorted(run.glob(f"{ARMS}/*")):
        if (folder / ARM).is_file():
            infos.append(_read_info(folder / ARM))
        elif AppendedLines(folder / ANSWERS).parts():
            raise EvaluationError(
                f"{folder} has answers, but no {ARM} with their settings; copy that file as well, "
                "or move the folder away"
            )
    ordered = sorted(
        infos, key=lambda info: (info["name"] != BASELINE, info["started"], info["name"])
    )
    return [info["name"] for info in ordered]


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = read_json(path)
    except EvaluationError as error:
        raise EvaluationError(f"{error}, or {ASK_AGAIN}") from error
    check_arm(info, path)
    if _folder_name(info["name"]) != path.parent.name:
        raise EvaluationError(
            f"{path} is the file of arm {info['name']!r:.60}, whose folder has another name; move "
            "this folder away if it is a copy, or rename it back"
        )
    return info


def _folder_name(name: str) -> str:
    """Return an arm's name, shortened if it is too long for file systems."""
    plain = name.replace(":", "-")  # in an image span; Windows does not allow colons
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
