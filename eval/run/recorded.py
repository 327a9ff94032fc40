"""Runs as they lie on the disk, in today's layout and in that of version 0.1; needs no torch.

Version 0.1 kept the answers of all arms in one `predictions.jsonl`. Such folders are read, listed
and scored; nothing is written to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer, Finding, Item
from eval.files.storage import Record, read_json, read_json_lines
from eval.run.arm_folder import ArmFolder, arm_names
from eval.run.costs import BatchCost
from eval.run.folder import OLD_ANSWERS, RUN


@dataclass(frozen=True, slots=True)
class RecordedArm:
    """One arm of a run.

    Attributes:
        name: The arm's.
        answers: In the file's order; not all of them if the arm is unfinished.
        info: What arm.json holds; empty in old runs.
        costs: By batch.
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
        settings: What decided the answers of every arm.
        arms: By name, the baseline first.
        begun: When it was begun, in UTC.
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
        """Whether its answers are from a file, and not from a model that this project asked."""
        return isinstance(self.settings.get("answers"), dict)

    @property
    def total(self) -> int:
        """Number of questions."""
        questions = self.settings.get("questions") or self.settings.get("images") or {}
        # Version 0.1 has the number of pictures there; MME has a part of that name.
        if isinstance(count := questions.get("count"), int):
            return count
        return sum(int(part["count"]) for part in questions.values())

    @property
    def hash(self) -> str:
        """The last part of the folder's name."""
        return self.path.name.rpartition("-")[2]

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
        EvaluationError: If it is no run folder, or damaged.
    """
    if not (path / RUN).is_file():
        raise EvaluationError(f"{path} is no run folder, it holds no {RUN}")
    content = read_json(path / RUN)
    settings = content.get("settings", {})
    if not isinstance(settings, dict) or not isinstance(settings.get("benchmark"), str):
        raise EvaluationError(f"{path / RUN} does not say which benchmark it is of")
    begun = str(content.get("started", ""))
    if (path / OLD_ANSWERS).is_file():
        return RecordedRun(path, settings, _old_arms(path), begun, old=True)
    found = {}
    for name in arm_names(path) if arms is None else arms:
        folder = ArmFolder(path, name)
        answers = list(folder.answers().values())
        found[name] = RecordedArm(name, answers, folder.info() or {}, folder.costs())
    return RecordedRun(path, settings, found, begun)


def runs_below(
    folder: Path, failed: Callable[[EvaluationError], None] = lambda _: None
) -> Iterator[RecordedRun]:
    """Yield the runs of a folder of runs.

    Args:
        folder: Holds run folders at any depth.
        failed: Called with the reason for each folder that can't be read, which is left out.
    """
    for path in sorted(folder.rglob(RUN)):
        try:
            yield read_run(path.parent)
        except EvaluationError as error:
            failed(error)


def find_run(name: str, runs_dir: Path) -> RecordedRun:
    """Return a run by its folder, or by the start of its hash.

    Raises:
        EvaluationError: If there is none, or more than one.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return read_run(path)
    found = [p.parent for p in sorted(runs_dir.rglob(RUN)) if _is_named(p.parent.name, name)]
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
    for number, row in read_json_lines(path / OLD_ANSWERS):
        try:
            answer = _old_answer(row)
            arms.setdefault(row["method"], RecordedArm(row["method"], [])).answers.append(answer)
        except (KeyError, TypeError) as error:
            raise EvaluationError(
                f"{path / OLD_ANSWERS}, line {number} is no recorded answer ({error})"
            ) from error
    for cost in _old_costs(path):
        if (arm := arms.get(cost.pop("method", ""))) is not None:
            arm.costs.append(BatchCost(**{**cost, "batch": str(cost["batch"])}))
    return dict(sorted(arms.items(), key=lambda item: item[0] != BASELINE))


def _old_answer(row: Mapping[str, Any]) -> Answer:
    caption = "caption" in row
    item = Item(
        row["image_id" if caption else "question_id"],
        row["image"],
        row["question"],
        row.get("label", ""),
        row.get("pope_type", ""),
    )
    findings = tuple(Finding(**found) for found in row.get("eah", ()))
    return Answer(
        item, row["caption" if caption else "answer"], row.get("finished", True), findings
    )


def _old_costs(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the costs of a run of version 0.1; lines that were cut off are left out."""
    for file in sorted(path.glob("costs*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                yield json.loads(line)
