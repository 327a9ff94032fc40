"""What a bench has measured so far, in its files after every round: a stopped bench loses none."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from eval.files.writing import what_stands_at, write_atomically, writing
from scripts.bench.rows import Row, table

PAUSE_S: Final = 1.0  # between two writings of rows that have more rounds to come
UNFINISHED: Final = "Not finished: these rows were measured before the bench stopped, or so far."


class Record:
    """Rows and sentences, and the files that hold them."""

    def __init__(
        self, environment: Mapping[str, Any], json: Path | None, markdown: Path | None
    ) -> None:
        """Check that the files can be written; what is there stays until a row is measured.

        Raises:
            EvaluationError: If one can't.
        """
        self.environment = environment
        self.failed = False
        self._json, self._markdown = json, markdown
        self._rows: list[Row] = []
        self._running: list[Row] = []
        self._lines: list[str] = []
        self._finished = False
        self._written = -math.inf
        for path in (json, markdown):
            if path:
                with writing(path):
                    what_stands_at(path)

    def update(self, rows: Sequence[Row]) -> None:
        """Take the rows of a measurement that goes on."""
        self._running = list(rows)
        if time.monotonic() - self._written > PAUSE_S:
            self._write()

    def add(self, rows: Sequence[Row], lines: Sequence[str] = ()) -> None:
        """Take the rows of a measurement that has ended, and sentences about it."""
        self.failed = self.failed or any(row.note.startswith("failed: ") for row in rows)
        self._rows += rows
        self._lines += lines
        self._running = []
        self._write()

    def finish(self) -> None:
        """Take note that all is measured."""
        self._finished = True
        self._write()

    @property
    def text(self) -> str:
        """What is printed, and written as Markdown."""
        around = "; ".join(f"{name} {value}" for name, value in self.environment.items())
        state = [] if self._finished else [UNFINISHED]
        rows = [*self._rows, *self._running]
        return "\n\n".join([around, *state, table(rows), *self._lines])

    def _write(self) -> None:
        rows = [_storable(row) for row in (*self._rows, *self._running)]
        content = {
            "environment": dict(self.environment),
            "finished": self._finished,
            "rows": rows,
            "compared": self._lines,
        }
        written = json.dumps(content, indent=1, allow_nan=False)
        for path, text in ((self._json, written), (self._markdown, self.text)):
            if path:
                write_atomically(path, text + "\n")
        self._written = time.monotonic()


def _storable(row: Row) -> dict[str, Any]:
    """Return a row as JSON has it: numbers that are none are null."""
    found = asdict(row)
    for name in ("values", "ratios"):
        found[name] = [value if math.isfinite(value) else None for value in found[name]]
    return found
