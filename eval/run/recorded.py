"""Read recorded runs, in the current layout and in that of version 0.1; does not import torch.

Version 0.1 stored the answers of all arms in one `predictions.jsonl`. Such folders are read, listed
and scored, but not changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer, Key, answer_of
from eval.files.storage import AppendedLines, Record, read_json, read_json_lines
from eval.files.typed import row_of
from eval.files.values import path_of
from eval.run.arm_folder import ARMS, COSTS, ArmFolder, arm_names
from eval.run.costs import BatchCost
from eval.run.folder import OLD_ANSWERS, RUN, SINKS
from eval.run.records import JUDGE, number_of_questions, validate_settings


@dataclass(frozen=True, slots=True)
class RecordedArm:
    """One arm of a run.

    Attributes:
        name: The arm's.
        answers: Answers in the file's order; some are missing if the arm is unfinished.
        info: Contents of arm.json; empty in old runs.
        costs: Costs of the batches.
    """

    name: str
    answers: list[Answer]
    info: Record = field(default_factory=dict)
    costs: list[BatchCost] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run folder.

    Attributes:
        path: The folder.
        settings: Settings that affect the answers of every arm.
        arms: Arms by name, the baseline first.
        begun: Start time, in UTC.
        old: Whether it has the layout of version 0.1.
    """

    path: Path
    settings: Record
    arms: dict[str, RecordedArm]
    begun: str = ""
    old: bool = False

    @property
    def task(self) -> str:
        """Name of the benchmark."""
        return str(self.settings["benchmark"])

    @property
    def saved(self) -> bool:
        """Whether its answers come from a file, not from a model that this project ran."""
        return isinstance(self.settings.get("answers"), dict)

    @property
    def total(self) -> int:
        """Number of questions."""
        return number_of_questions(self.settings) or 0

    @property
    def hash(self) -> str:
        """The last part of the folder's name."""
        return self.path.name.rpartition("-")[2]

    def check_answered(self) -> None:
        """Refuse a folder of observations, or of a judge's replies.

        Raises:
            EvaluationError: If it is one.
        """
        if self.task == SINKS:
            raise EvaluationError(
                f"{self.path} contains observations of eval/sinks.py, not answers; open its page "
                "sinks.html, or pass a folder of answers"
            )
        if self.task == JUDGE:
            raise EvaluationError(
                f"{self.path} contains replies of a judge, not answers; run eval/gpt4v_eval.py or "
                "eval/mmhal_eval.py again for its numbers, or pass a folder of answers"
            )

    def finished(self) -> dict[str, RecordedArm]:
        """Return the arms that have all their answers."""
        return {name: arm for name, arm in self.arms.items() if len(arm.answers) == self.total}

    def answers(self) -> dict[str, list[Answer]]:
        """Return the answers of the finished arms.

        Raises:
            EvaluationError: If no arm is finished.
        """
        finished = self.finished()
        if not finished:
            raise EvaluationError(
                f"no arm of {self.path} is finished; run the command in its run.json again"
            )
        return {name: arm.answers for name, arm in finished.items()}


def read_run(path: Path, arms: Sequence[str] | None = None) -> RecordedRun:
    """Read a run folder.

    Args:
        path: The folder.
        arms: Arms to read; None for all.
    Raises:
        EvaluationError: If it is not a run folder, or is damaged.
    """
    if not (path / RUN).is_file():
        raise EvaluationError(
            f"{path} is not a run folder, since it has no {RUN}; pass a folder with {RUN}"
        )
    content = read_json(path / RUN)
    settings, begun = validate_settings(content, path / RUN), str(content.get("started", ""))
    is_old = (path / OLD_ANSWERS).is_file() and not (path / ARMS).exists()
    found = _old_arms(path) if is_old else {}
    for name in () if is_old else arm_names(path) if arms is None else arms:
        folder = ArmFolder(path, name)
        answers = list(folder.answers().values())
        found[name] = RecordedArm(name, answers, folder.info() or {}, folder.costs())
    run = RecordedRun(path, settings, found, begun, is_old)
    for name, arm in found.items():
        if number_of_questions(settings) is not None and len(arm.answers) > run.total:
            raise EvaluationError(
                f"arm {name} of {path} has {len(arm.answers)} answers, but the run asks "
                f"{run.total} questions; remove the lines that were added"
            )
    return run


def runs_below(
    folder: Path, failed: Callable[[EvaluationError], None] = lambda _: None
) -> Iterator[RecordedRun]:
    """Yield the runs of a folder of runs.

    Args:
        folder: A folder with run folders at any depth.
        failed: Called with the reason for each folder that can't be read; it is skipped.
    """
    for path in sorted(_run_folders(folder, failed)):
        try:
            yield read_run(path)
        except EvaluationError as error:
            failed(error)


def _run_folders(folder: Path, failed: Callable[[EvaluationError], None]) -> Iterator[Path]:
    """Yield the folders with run.json at any depth; report unreadable folders to `failed`."""

    def unreadable(error: OSError) -> None:
        failed(EvaluationError(f"{error.filename} can't be read: {error.strerror}"))

    for at, _, names in os.walk(folder, onerror=unreadable):
        if RUN in names:
            yield Path(at)


def find_run(name: str, runs_dir: Path) -> RecordedRun:
    """Return a run by its folder, or by the start of its hash.

    Raises:
        EvaluationError: If there is none, or more than one.
    """
    path = path_of(name, "run")
    if path.is_dir():
        return read_run(path)
    found = [p for p in sorted(_run_folders(runs_dir, lambda _: None)) if _is_named(p.name, name)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        hint = "runs.py list shows all" if not found else ", ".join(p.name for p in found)
        raise EvaluationError(
            f"{what} in {runs_dir} for {name!r}: pass a folder, or enough of the hash at the end "
            f"of its name (--runs-dir names another place); {hint}"
        )
    return read_run(found[0])


def _is_named(folder: str, name: str) -> bool:
    return bool(name) and (folder == name or folder.rpartition("-")[2].startswith(name))


def _old_arms(path: Path) -> dict[str, RecordedArm]:
    """Return the arms of a run of version 0.1."""
    arms: dict[str, RecordedArm] = {}
    places: dict[tuple[str, Key], int] = {}
    for number, row in read_json_lines(path / OLD_ANSWERS):
        where, method = f"{path / OLD_ANSWERS}, line {number}", row.get("method")
        if not isinstance(method, str):
            raise EvaluationError(
                f"{where} is not a recorded answer (its method is {method!r:.60})"
            )
        answer = answer_of(_rename_old_keys(row), where)
        if (first := places.setdefault((method, answer.item.key), number)) != number:
            raise EvaluationError(
                f"{where} answers the question of line {first} again; delete one of the lines"
            )
        arms.setdefault(method, RecordedArm(method, [])).answers.append(answer)
    costs = path / COSTS
    for number, cost in enumerate(AppendedLines(costs).read(), start=1):
        try:
            batch = {name: value for name, value in cost.items() if name != "method"}
            batch["batch"] = str(batch.get("batch"))
            found = row_of(BatchCost, batch, f"batch {number}")
        except TypeError as error:
            raise EvaluationError(
                f"{costs} is damaged ({error}); delete it, it contains only costs"
            ) from error
        if isinstance(method := cost.get("method"), str) and method in arms:
            arms[method].costs.append(found)
    return dict(sorted(arms.items(), key=lambda item: item[0] != BASELINE))


def _rename_old_keys(row: Record) -> Record:
    """Return a row of version 0.1 with the keys of current answers."""
    kind = ("image_id", "caption") if "caption" in row else ("question_id", "answer")
    names = dict(zip((*kind, "pope_type"), ("id", "answer", "part"), strict=True))
    same = ("image", "question", "label", "finished", "eah")
    return {names.get(key, key): of for key, of in row.items() if key in (*names, *same)}
