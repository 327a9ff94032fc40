"""Record answers from a file as a run folder, so that all commands for runs work on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.saved import NO_MODEL, SavedAnswers
from eval.files.storage import Record
from eval.run.arm_folder import LONGEST_NAME, ArmFolder
from eval.run.folder import RUN, RunFolder, questions_record
from eval.run.provenance import provenance


def record_saved(
    saved: SavedAnswers, root: Path, benchmark: str, label: str, items: Sequence[Item]
) -> Path:
    """Write answers into a run folder, unless they are there already, and return the folder.

    The folder's name depends on the benchmark, the questions and the contents of the file.

    Args:
        saved: The answers.
        root: Folder of all runs.
        benchmark: Name of the benchmark.
        label: First part of the folder's name.
        items: The questions.
    Raises:
        EvaluationError: If the folder can't be written, or its answers were changed.
    """
    facts = dict(saved.facts)
    name = facts.pop("file")
    settings = {
        "benchmark": benchmark,
        "questions": questions_record([(item, item.question) for item in items]),
        **saved.settings,
        "model": saved.model,
        "answers": facts,
    }
    model = re.sub(r"[^\w.-]+", "-", saved.model).strip(".-")[:LONGEST_NAME] or NO_MODEL
    with RunFolder(root / benchmark / model, label, settings) as folder:
        folder.settings["answers"]["file"] = name  # a copy of the file is the same run
        if not (folder.path / RUN).exists():
            folder.begin(_provenance())
        for arm, answers in saved.arms.items():
            _record_arm(ArmFolder(folder.path, arm), answers)
    return folder.path


def _record_arm(folder: ArmFolder, answers: Sequence[Answer]) -> None:
    """Write an arm's answers, unless they are there already."""
    there = folder.answers()
    if len(there) == len(answers):
        if list(there.values()) != list(answers):
            raise EvaluationError(
                f"{folder.path} contains other answers than the file that it was made from; it was "
                "changed: delete the run folder, and run the same command again"
            )
        return
    folder.write_info({"name": folder.name, **_provenance()})
    folder.finish(answers)


def _provenance() -> Record:
    """Return versions, commit and time, but not the command, which contains the file's full path."""
    return {name: of for name, of in provenance(()).items() if name != "command"}
