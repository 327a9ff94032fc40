"""A run is a folder: what was asked for, every answer as it came, and the metrics.

    run.json           resolved settings, versions, device, hashes; written first
    predictions.jsonl  one line per answer, appended batch by batch; the resume point
    metrics.json       replaced as a whole, at the end

The folder's name follows from the settings, so the same command finds the same folder and goes on
where it stopped. A lock keeps a second process out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from filelock import FileLock, Timeout

from eval.errors import EvaluationError

PREDICTIONS: Final = "predictions.jsonl"
METRICS: Final = "metrics.json"
RUN: Final = "run.json"
Row = dict[str, Any]


class RunFolder:
    """A locked run folder; use it in a `with` block."""

    def __init__(
        self, root: Path, label: str, settings: Mapping[str, Any], *, rows: str = PREDICTIONS
    ) -> None:
        """Name the folder after its label and a hash of the settings; nothing is written yet.

        Args:
            root: Folder that it is in.
            label: First part of its name.
            settings: What decides the answers.
            rows: Name of the file of answers.
        """
        canonical = json.dumps(settings, sort_keys=True, default=str)
        self.settings = json.loads(canonical)
        self.path = root / f"{label}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"
        self._rows = self.path / rows
        self._lock = FileLock(str(self.path / ".lock"), timeout=0)

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

    def predictions(self) -> list[Row]:
        """Return the answers so far; a last line that was cut off in writing is taken away.

        Raises:
            EvaluationError: If any other line is damaged.
        """
        path = self._rows
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with writing(path):
                os.truncate(path, len(whole))
        rows = []
        # Not splitlines(), which also splits at characters that JSON leaves in a text, as U+2028.
        for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise EvaluationError(
                    f"{path}, line {number} is damaged; delete that line and run again"
                ) from error
        return rows

    def append(self, rows: Iterable[Row]) -> None:
        """Append answers, so that they survive whatever comes next."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with writing(self._rows), self._rows.open("ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        write_atomically(self.path / name, json.dumps(content, indent=1, default=str) + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, so that a reader or a crash never meets half of it."""
    encoded = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one sentence."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{path} can't be written: {error.strerror}; what was written before is kept: "
            "make room or choose another place, and run the same command again"
        ) from error


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
