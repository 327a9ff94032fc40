"""JSON files, and JSON-lines files that are appended to without losing a line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from eval.errors import EvaluationError
from eval.files.text import read_bytes, read_text
from eval.files.writing import write_atomically, write_errors
from models.json_files import json_fault, parse_json

_PROCESS: Final = re.compile(r"[0-9]{1,6}")
Record = dict[str, Any]
"""One JSON object of a file."""


def read_json_lines(path: Path) -> list[tuple[int, Record]]:
    """Return the objects of a JSON-lines file with their line numbers; empty lines are skipped.

    Raises:
        EvaluationError: If the file can't be read or a line is not a JSON object.
    """
    return [(number, _record(path, number, line)) for number, line in read_lines(path)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, stripped, with their numbers.

    Raises:
        EvaluationError: If the file can't be read.
    """
    text = read_text(path)
    # Not splitlines(), which also splits at characters that JSON text may contain, such as U+2028.
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def dump_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of a JSON-lines file."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read_json(path: Path) -> Record:
    """Return the object in a JSON file that this project wrote.

    Raises:
        EvaluationError: If it can't be read or is not a JSON object.
    """
    try:
        content = parse_json(read_bytes(path))
    except ValueError as error:
        raise EvaluationError(
            f"{path} is damaged, it is not complete JSON ({json_fault(error)}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} is damaged, it is not a JSON object; copy it again")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


class AppendedLines:
    """A JSON-lines file that several processes append to, each to its own part.

    The parts are `answers.jsonl` and, with several processes, `answers.3.jsonl` of process 3.
    """

    def __init__(self, path: Path, process: int | None = None) -> None:
        """Name the file.

        Args:
            path: The file that has all lines in the end.
            process: This process's number among several; None for the only one.
        """
        self.path = path
        self._own = path if process is None else path.with_suffix(f".{process}{path.suffix}")

    def parts(self) -> list[Path]:
        """Return the files that exist, the common one first."""
        found = self.path.parent.glob(f"{self.path.stem}.*{self.path.suffix}")
        numbered = {p: p.name.split(".")[-2] for p in found}
        parts = sorted(
            (p for p, n in numbered.items() if _PROCESS.fullmatch(n)),
            key=lambda p: int(numbered[p]),
        )
        return [path for path in (self.path, *parts) if path.exists()]

    def read(self) -> list[Record]:
        """Return the records of all parts, see `read_parts`."""
        return [record for part in self.read_parts() for record in part]

    def read_parts(self) -> list[list[Record]]:
        """Return the records of each part.

        A last line that is cut off is skipped. No file is changed: another process may be writing.

        Raises:
            EvaluationError: If any other line is damaged.
        """
        return [_records(path) for path in self.parts()]

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records and flush them to the disk, so that they survive a crash.

        A last line that is cut off is removed first.
        """
        with write_errors(self._own), self._own.open("ab+") as file:
            _drop_partial_line(file)
            file.write(dump_lines(records).encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())

    def join(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace all parts by one file with these records.

        A part with any other record was not written by this run: it is renamed and kept.
        """
        joined = dump_lines(records)
        write_atomically(self.path, joined)
        known = {_canonical(record) for record in _records(self.path)}
        with write_errors(self.path):
            for path in self.parts():
                if path == self.path:
                    continue
                if all(_canonical(record) in known for record in _records(path)):
                    path.unlink()
                else:
                    path.rename(path.with_name(f"{path.name}.kept"))


def _records(path: Path) -> list[Record]:
    """Return the records of a part, without a last line that is cut off."""
    lines = enumerate(read_bytes(path).split(b"\n")[:-1], start=1)
    return [_record(path, number, line) for number, line in lines]


def _canonical(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


def _drop_partial_line(file: BinaryIO) -> None:
    """Remove a last line that is cut off."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _record(path: Path, number: int, line: str | bytes) -> Record:
    try:
        record = parse_json(line)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else json_fault(error)
        raise EvaluationError(
            f"{path}, line {number} is not JSON ({reason}); each line must be one object"
        ) from error
    if not isinstance(record, dict):
        raise EvaluationError(f"{path}, line {number} is not a JSON object: {record!r:.60}")
    return record
