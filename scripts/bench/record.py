"""What a bench has measured so far, in its files after every round: a stopped bench loses none."""

from __future__ import annotations

import json
import math
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from eah.exit_status import BUG, OK
from eval.errors import EvaluationError
from eval.files.writing import write_atomically
from eval.run.outputs import OutputFile, check_outputs
from scripts.bench.rows import Row, table

PAUSE_S: Final = 1.0  # between two writings of rows that have more rounds to come
# What the first lines of the files have.
JSON: Final = '"environment"'
MARKDOWN: Final = "; transformers "
UNFINISHED: Final = "Not finished: these rows were measured before the bench stopped, or so far."


def add_output_flags(parser: ArgumentParser) -> None:
    """Add the flags of the files of a record."""
    flag = parser.add_argument
    flag("--json", type=Path, metavar="FILE", help="write every round's number here")
    flag("--markdown", type=Path, metavar="FILE", help="write what is printed here")
    flag("--overwrite", action="store_true", help="let them replace files that no bench wrote")


class Record:
    """Rows and sentences, and the files that hold them."""

    def __init__(
        self,
        environment: Mapping[str, Any],
        json: Path | None,
        markdown: Path | None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Check that the files can be written; what is there stays until a row is measured.

        Args:
            environment: What the numbers are measured on.
            json: File for every round's number.
            markdown: File for the table.
            overwrite: Whether files that no bench wrote may be replaced.
        Raises:
            EvaluationError: If one can't be written, is not a file, or was not written by a bench.
        """
        self.environment = environment
        self.failed = False
        self._json, self._markdown = json, markdown
        self._rows: list[Row] = []
        self._running: list[Row] = []
        self._lines: list[str] = []
        self._finished = False
        self._written = -math.inf
        check_outputs(
            [
                OutputFile(flag, path, "bench", overwrite, mark)
                for flag, path, mark in (("--json", json, JSON), ("--markdown", markdown, MARKDOWN))
                if path
            ],
            (),
        )
        for path in (json, markdown):
            if path and path.exists() and not path.is_file():
                raise EvaluationError(
                    f"{path} is not a file, and files are replaced after every round; name a file, "
                    "or leave it out: the table is printed anyway"
                )

    def update(self, rows: Sequence[Row]) -> None:
        """Take the rows so far of a running measurement."""
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

    @contextmanager
    def print_at_end(self) -> Iterator[None]:
        """In a `with` block, measure; what was measured is printed, also where it is stopped."""
        try:
            yield
            self._finished = True
            self._write()
        finally:
            print(self.text, flush=True)

    @property
    def status(self) -> int:
        """The command's exit status: 1 if something failed."""
        return BUG if self.failed else OK

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
    """Return a row as JSON has it: nan is null."""
    found = asdict(row)
    for name in ("values", "ratios"):
        found[name] = [value if math.isfinite(value) else None for value in found[name]]
    return found
