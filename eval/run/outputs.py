"""Output files named by flags: they never replace inputs, or files that the command did not write.

Each output file names the command that wrote it, so the same command may replace it. Any other
file is replaced only with `--overwrite`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.errors import EvaluationError
from eval.files.storage import write_json
from eval.files.writing import check_target, write_atomically, write_errors
from eval.run.folder import BATCHES, METRICS, REPORT, RUN

if TYPE_CHECKING:
    from eval.run.settings import RunSettings

WRITTEN_BY: Final = "written_by"
RECORDS: Final = (RUN, METRICS, BATCHES)
HEAD_BYTES: Final = 4096  # our mark is within the first bytes of a file


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a command writes.

    Attributes:
        flag: The flag that names the file, such as "--json".
        path: The file.
        command: Name of the command in the mark.
        overwrite: Whether a file that this command did not write may be replaced.
        mark: Text that marks a file as written by this command; empty if the format has none.
    """

    flag: str
    path: Path
    command: str
    overwrite: bool = False
    mark: str = ""

    def write_json(self, content: Mapping[str, Any]) -> None:
        """Write a JSON object; errors as in `check`."""
        self.check()
        write_json(self.path, {WRITTEN_BY: f"EAH {self.command}", **content})

    def write_page(self, page: str) -> None:
        """Write an HTML page; errors as in `check`."""
        self.check()
        write_atomically(self.path, page.replace("<head>", f"<head>\n<meta {self.mark}>", 1))

    def write_text(self, text: str) -> None:
        """Write a file of another tool's format; errors as in `check`."""
        self.check(text)
        write_atomically(self.path, text)

    def check(self, text: str | None = None) -> None:
        """Check that the file can be written, and that an existing file may be replaced.

        Args:
            text: The text to write, if known; a file with the same text may be replaced.
        Raises:
            EvaluationError: If another file exists at the path.
        """
        with write_errors(self.path):
            state = check_target(self.path)
            if state is None:
                self._check_folder()
                return
        is_later = not self.mark and text is None  # the file may already have the text
        if self.overwrite or is_later or not stat.S_ISREG(state.st_mode) or not state.st_size:
            return
        if not (self.is_ours() or (text is not None and self._holds(text))):
            raise EvaluationError(
                f"{self.flag} {self.path} already exists and was not written by this "
                "command: name another file, or pass --overwrite to replace it"
            )

    def check_name(self) -> None:
        """Check that the path is valid on this system; errors as in `check`."""
        with write_errors(self.path):
            os.path.realpath(self.path)

    def is_ours(self) -> bool:
        """Return whether this command wrote the existing file."""
        if not self.mark:
            return False
        try:
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError:
            return False
        return self.mark.encode() in head

    def _holds(self, text: str) -> bool:
        """Return whether the file's content is this text."""
        try:
            is_file = self.path.is_file()
            return is_file and self.path.read_bytes() == text.encode("utf-8", "backslashreplace")
        except OSError:
            return False

    def _check_folder(self) -> None:
        """Check that the file can be created, before the long computation."""
        above = Path(os.path.realpath(self.path)).parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(0, f"{above} is not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(0, f"{above} is write-protected")


def output_files(
    command: str, *, overwrite: bool = False, **paths: Path | None
) -> dict[str, OutputFile]:
    """Return the files that a command's flags ask for, by the name of the flag."""
    return {
        name: OutputFile(f"--{name}", path, command, overwrite, _mark(name, command))
        for name, path in paths.items()
        if path is not None
    }


def json_file(command: str, settings: RunSettings) -> list[OutputFile]:
    """Return the file of --json of a command that runs a model, if the flag is given."""
    files = output_files(command, overwrite=settings.overwrite, json=settings.json)
    return list(files.values())


def _mark(name: str, command: str) -> str:
    """Return the mark of pages (--report) or of JSON files."""
    if name == "report":
        return f'name="generator" content="EAH {command}"'
    return f'"{WRITTEN_BY}": "EAH {command}"'


def check_outputs(outputs: Iterable[OutputFile], inputs: Iterable[Path]) -> None:
    """Check all files that a command will write, before it reads anything.

    Args:
        outputs: The files.
        inputs: Files and folders that the command reads.
    Raises:
        EvaluationError: If one is an input under any name, is in a folder of inputs and not written
            by this command, belongs to a run, is another output or the target of standard output;
            or as in `OutputFile.check`.
    """
    outputs, read = list(outputs), list(inputs)
    for number, output in enumerate(outputs):
        what = f"{output.flag} {output.path}"
        output.check_name()
        for path in (*_runs_around(output), *(one for one in read if _is_read(output, one))):
            raise EvaluationError(
                f"{what} is an input or a record of a run ({path}) and would be "
                "overwritten; name another file"
            )
        for other in outputs[:number]:
            if same_file(output.path, other.path):
                raise EvaluationError(
                    f"{what} is the file of {other.flag}, too; name a file for each"
                )
        if any(_is_stream(output.path, stream) for stream in (sys.stdout, sys.stderr)):
            raise EvaluationError(
                f"{what} is the file that the command's printed output goes to; name another file"
            )
        output.check()


def paths_in(*values: object) -> list[Path]:
    """Return the paths among values and lists of them."""
    found: list[Path] = []
    for value in values:
        if isinstance(value, Path):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += paths_in(*value)
    return found


def _runs_around(output: OutputFile) -> list[Path]:
    """Return the run folders that a file belongs to, or would seem to belong to.

    Reports do not count as records, and a page or result may be next to run.json.
    """
    target = Path(os.path.realpath(output.path))
    found = []
    for run in (above for above in target.parents if (above / RUN).is_file()):
        below = target.relative_to(run).parts
        is_new = not target.exists() or output.is_ours()
        beside = len(below) == 1 and target.suffix != ".jsonl" and target.name not in RECORDS
        if below[0] != REPORT and not (beside and is_new):
            found.append(run)
    return found


def _is_read(output: OutputFile, source: Path) -> bool:
    """Return whether an output is an input, or an existing file of a folder of inputs."""
    if same_file(output.path, source):
        return True
    target, folder = (Path(os.path.realpath(path)) for path in (output.path, source))
    return folder in target.parents and target.exists() and not output.is_ours()


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths are the same file: also via links, or before it exists."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _is_stream(path: Path, stream: Any) -> bool:
    """Return whether a stream of this process is redirected to a regular file at a path."""
    try:
        state, own = path.stat(), os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISREG(own.st_mode) and os.path.samestat(state, own)
