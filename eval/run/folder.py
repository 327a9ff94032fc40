"""A run folder: named by a hash of its settings, locked while a process writes to it.

    run.json    settings, versions, device, commit; written first

Answers of arms are in subfolders, see `eval/run/arm_folder.py`; a judge's replies are next to
run.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from filelock import FileLock, Timeout

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.files.storage import AppendedLines, Record, read_json, write_json
from eval.files.writing import write_errors
from eval.run.processes import Process

RUN: Final = "run.json"
BATCHES: Final = "batches.json"
METRICS: Final = "metrics.json"
SINKS: Final = "sinks"  # recorded as the benchmark in run folders of eval/sinks.py
REPORT: Final = "report"  # a folder; can be recreated from the answers
# In version 0.1: the answers of all arms.
OLD_ANSWERS: Final = "predictions.jsonl"


class RunFolder:
    """A run folder; use it in a `with` block, which locks it.

    Attributes:
        path: The folder.
        settings: The settings that decide its contents, as JSON values.
        process: This process among the processes of the run.
    """

    def __init__(
        self, root: Path, label: str, settings: Mapping[str, Any], process: Process | None = None
    ) -> None:
        """Name the folder after its label and a hash of the settings; nothing is written yet.

        Args:
            root: Its parent folder.
            label: First part of its name, for people.
            settings: The settings that decide its contents.
            process: This process among the processes of the run; None for the only one.
        """
        canonical = json.dumps(settings, sort_keys=True, default=str)
        self.settings: Record = json.loads(canonical)
        self.path = root / f"{label}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"
        self.process = process or Process()
        index = self.process.index
        # The first process has the same lock as a single process, so no run is started twice.
        self._lock = FileLock(str(self.path / (f".lock.{index}" if index else ".lock")), timeout=0)

    def __enter__(self) -> RunFolder:
        """Create and lock the folder.

        Raises:
            EvaluationError: If another process has locked it, or it can't be written.
        """
        with write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise EvaluationError(
                f"another process is writing to {self.path}; wait for it, or change a setting"
            ) from error
        except OSError as error:
            raise EvaluationError(f"{self.path} can't be written: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self._lock.release()

    def begin(self, provenance: Record) -> None:
        """Write run.json, or record in it that the run was resumed."""
        path = self.path / RUN
        if path.exists():
            content = read_json(path)
            content["resumed"] = [*content.get("resumed", []), provenance]
        else:
            content = {"settings": self.settings, **provenance}
        self.write(RUN, content)

    def write_once(self, name: str, content: Mapping[str, Any]) -> Record:
        """Write a JSON file unless it exists, and return its contents.

        All processes of a run use the values of the first one, even after the run is resumed.
        """
        path = self.path / name
        with self.common_lock():
            if not path.exists():
                self.write(name, content)
        return read_json(path)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder atomically."""
        write_json(self.path / name, content)

    def lines(self, name: str) -> AppendedLines:
        """Return a JSON-lines file of the folder; each process appends to its own part of it."""
        number = None if self.process.is_alone else self.process.index
        return AppendedLines(self.path / name, number)

    def common_lock(self) -> FileLock:
        """Return a lock for work that only one process of the run may do at a time."""
        return FileLock(str(self.path / ".lock.common"))


def questions_record(asked: Iterable[tuple[Item, str]]) -> dict[str, Any]:
    """Return the number and SHA-256 of the questions of each part, for run.json.

    Args:
        asked: Questions, each with the text that is sent to the model.
    """
    parts: dict[str, list[list[Any]]] = {}
    for item, text in asked:
        groups = (
            [dict(item.groups)] if item.groups else []
        )  # no key without groups, as in older folders
        asked_of = [item.id, item.image, text, item.label, *groups]
        parts.setdefault(item.part, []).append(asked_of)
    return {
        part: {"count": len(of), "sha256": hashlib.sha256(json.dumps(of).encode()).hexdigest()}
        for part, of in parts.items()
    }
