"""A run is a folder: what was asked for, every answer as it came, and the metrics.

    run.json           resolved settings, versions, device, hashes; written first
    predictions.jsonl  one line per answer, appended batch by batch; the resume point
    metrics.json       replaced as a whole, at the end

The folder's name follows from the settings, so the same command finds the same folder and goes on
where it stopped. A lock keeps a second run out. Where several processes share a run, each appends
to a file of its own, `predictions.3.jsonl`; they are put together when all answers are there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from filelock import FileLock, Timeout

from eval.errors import EvaluationError
from eval.files.writing import write_atomically, writing
from eval.run.processes import Place

PREDICTIONS: Final = "predictions.jsonl"
METRICS: Final = "metrics.json"
RUN: Final = "run.json"
Row = dict[str, Any]
Key = tuple[Any, ...]


class RunFolder:
    """A locked run folder; use it in a `with` block."""

    def __init__(
        self,
        root: Path,
        label: str,
        settings: Mapping[str, Any],
        *,
        rows: str = PREDICTIONS,
        place: Place | None = None,
    ) -> None:
        """Name the folder after its label and a hash of the settings; nothing is written yet.

        Args:
            root: Folder that it is in.
            label: First part of its name.
            settings: What decides the answers.
            rows: Name of the file of answers.
            place: This process among those that share the run; None for the only one.
        """
        canonical = json.dumps(settings, sort_keys=True, default=str)
        self.settings = json.loads(canonical)
        self.path = root / f"{label}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"
        self.place = place or Place()
        self._rows = self.path / rows
        index = self.place.index
        self._own = self._rows if self.place.is_alone else part_of(self._rows, index)
        # The first process has the same lock as an only one, so that a run is never started twice.
        lock = self.path / (f".lock.{index}" if index else ".lock")
        self._lock = FileLock(str(lock), timeout=0)

    def __enter__(self) -> RunFolder:
        """Create and lock the folder.

        Raises:
            EvaluationError: If another process has it, or it can't be written.
        """
        with writing(self.path):
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

    def begin(self, provenance: Row) -> None:
        """Write run.json, or note in it that the run goes on."""
        path = self.path / RUN
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            content["resumed"] = [*content.get("resumed", []), provenance]
        else:
            content = {"settings": self.settings, **provenance}
        self.write(RUN, content)

    def predictions(self, key: Callable[[Row], Key] | None = None) -> list[Row]:
        """Return the answers so far, of all processes.

        The last line of a file is left out if it was cut off in writing, and taken away from this
        process's own file.

        Args:
            key: Tells which answers are to the same prompt, where files of several processes may
                overlap: the first counts.
        Raises:
            EvaluationError: If any other line is damaged.
        """
        rows: list[Row] = []
        known: set[Key] = set()
        for path in self._files():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content) and path == self._own:
                with writing(path):
                    os.truncate(path, len(whole))
            fresh = _parsed(whole, path)
            if key is not None:
                fresh = [row for row in fresh if key(row) not in known]
                known.update(map(key, fresh))
            rows += fresh
        return rows

    def gathered(
        self, key: Callable[[Row], Key], wanted: Sequence[Key], *, found: bool = False
    ) -> list[Row] | None:
        """Put the answers of all processes into one file; None where that is another's to do.

        The process that finds all answers recorded does it, once.

        Args:
            key: Tells which prompt and method an answer is of.
            wanted: All keys, in the order of the file.
            found: Whether all answers were there when this process started; the first process
                then has them.
        """
        with self._common():
            rows = {key(row): row for row in self.predictions(key)}
            if any(one not in rows for one in wanted):
                return None
            ordered = [rows[one] for one in wanted]
            parts = [path for path in self._files() if path != self._rows]
            if parts:
                write_atomically(self._rows, _lines(ordered))
                for path in parts:
                    path.unlink()
            elif not self.place.is_alone and not (found and self.place.index == 0):
                return None
            return ordered

    def settled(self, name: str, content: Mapping[str, Any]) -> Row:
        """Write a JSON file if it is not there yet, and return what is there.

        What one process of a run decides, all go by, also when the run goes on later.
        """
        path = self.path / name
        with self._common():
            if not path.exists():
                self.write(name, content)
        found: Row = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _common(self) -> FileLock:
        """Return a lock for what the processes of a run do one after another."""
        return FileLock(str(self.path / ".lock.common"))

    def _files(self) -> list[Path]:
        """Return the files of answers that exist, the common one first."""
        parts = self._rows.parent.glob(part_of(self._rows, "*").name)
        numbered = sorted(parts, key=lambda path: int(path.name.split(".")[-2]))
        return [path for path in (self._rows, *numbered) if path.exists()]

    def append(self, rows: Iterable[Row]) -> None:
        """Append answers, so that they survive whatever comes next."""
        with writing(self._own), self._own.open("ab") as file:
            file.write(_lines(rows).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        write_atomically(self.path / name, json.dumps(content, indent=1, default=str) + "\n")


def part_of(path: Path, index: int | str) -> Path:
    """Return the file of one process: `predictions.3.jsonl` of `predictions.jsonl`."""
    return path.with_suffix(f".{index}{path.suffix}")


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _parsed(content: bytes, path: Path) -> list[Row]:
    """Return the rows of a file's whole lines."""
    rows = []
    # Not splitlines(), which also splits at characters that JSON leaves in a text, as U+2028.
    for number, line in enumerate(content.decode("utf-8").split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise EvaluationError(
                f"{path}, line {number} is damaged; delete that line and run again"
            ) from error
    return rows


def keyed(rows: Iterable[Row], key: Callable[[Row], tuple[Any, ...]]) -> dict[tuple[Any, ...], Row]:
    """Return rows by key.

    Raises:
        EvaluationError: If a key occurs twice.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if key(row) in found:
            raise EvaluationError(f"the answer to {key(row)} is recorded twice; delete one of them")
        found[key(row)] = row
    return found


def decoding_in_words(decoding: Row) -> str:
    """Return how the answers of a run were decoded, for people."""
    how = "nucleus sampling" if decoding["do_sample"] else f"{decoding['num_beams']} beam(s)"
    return f"{how}, at most {decoding['max_new_tokens']} tokens"
