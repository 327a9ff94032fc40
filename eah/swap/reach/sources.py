"""Read the Python files and notebooks of a folder, whatever their content."""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SKIPPED: Final = {
    ".git", ".hg", ".svn", ".venv", "site-packages", "node_modules", "__pycache__", ".tox", ".nox",
    ".eggs", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints",
}  # fmt: skip
ENVIRONMENT: Final = ("pyvenv.cfg", "conda-meta")
LLAMA: Final = Path("models", "llama", "modeling_llama.py")
MAX_BYTES: Final = 8_000_000
MAX_DEPTH: Final = 100  # of nodes in nodes; common code has up to 40
TOO_DEEP: Final = "nested too deeply"
COMMAND: Final = re.compile(r"\s*([%!?]|[\w, ]+=\s*[%!]|[\w.]+\?+$)")  # for IPython, not Python


@dataclass(frozen=True, slots=True)
class Source:
    """A file with code.

    Attributes:
        path: Relative to the folder, with slashes.
        text: The code; of a notebook all its code cells, one after the other.
        tree: The parsed code; None if it does not parse.
        problem: Why it does not parse, or could not be read.
        problem_line: Where it does not parse.
        cells: For each line of a notebook, its cell and the line there.
    """

    path: str
    text: str
    tree: ast.Module | None = None
    problem: str = ""
    problem_line: int = 1
    cells: tuple[tuple[int, int], ...] = ()

    def place(self, line: int) -> str:
        """Return the path with a line, of a notebook with the cell."""
        if not self.cells:
            return f"{self.path}:{line}"
        cell, line = self.cells[min(line, len(self.cells)) - 1]
        return f"{self.path}:cell {cell}:{line}"


@dataclass(frozen=True, slots=True)
class Folder:
    """The code of a folder.

    Attributes:
        sources: Files with code, sorted by path.
        vendored: modeling_llama.py of each transformers in it; none of its files are in `sources`.
        unread: Paths that were not read, with the reason.
    """

    sources: tuple[Source, ...]
    vendored: tuple[Source, ...]
    unread: tuple[tuple[str, str], ...]


def read_folder(root: Path) -> Folder:
    """Read all code in a folder, except version control, environments, caches and node_modules."""
    sources: list[Source] = []
    vendored: list[Source] = []
    unread: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        path = Path(error.filename or root)
        unread.append((path.relative_to(root).as_posix(), error.strerror or "not readable"))

    own = _vendored(root)
    if own is not None:
        return Folder((), (_read(root, own),), ())
    for found, names, files in os.walk(root, onerror=note):
        here = Path(found)
        kept = []
        for name in sorted(names):
            folder = here / name
            if name in SKIPPED or any((folder / mark).exists() for mark in ENVIRONMENT):
                continue
            if folder.is_symlink():
                if not folder.resolve().is_relative_to(root.resolve()):
                    unread.append((folder.relative_to(root).as_posix(), "a link to a folder"))
                continue
            modeling = _vendored(folder)
            if modeling is not None:
                vendored.append(_read(root, modeling))
                continue
            kept.append(name)
        names[:] = kept
        for name in files:
            if name.endswith((".py", ".ipynb")) and (here / name).is_file():
                source = _read(root, here / name)
                sources.append(source)
                if source.problem and not source.text:
                    unread.append((source.path, source.problem))
    return Folder(
        tuple(sorted((s for s in sources if s.text or not s.problem), key=lambda s: s.path)),
        tuple(sorted(vendored, key=lambda source: source.path)),
        tuple(sorted(unread)),
    )


def _vendored(folder: Path) -> Path | None:
    """Return modeling_llama.py if the folder is transformers, or a checkout of it."""
    for package in (folder, folder / "src" / "transformers"):
        is_checkout = package == folder or (folder / "setup.py").is_file()
        if is_checkout and all(
            (package / name).is_file() for name in (LLAMA, "__init__.py", "modeling_utils.py")
        ):
            return package / LLAMA
    return None


def _read(root: Path, file: Path) -> Source:
    path = file.relative_to(root).as_posix()
    try:
        if file.stat().st_size > MAX_BYTES:
            return Source(path, "", problem=f"larger than {MAX_BYTES // 10**6} MB")
        content = file.read_bytes()
    except OSError as error:
        return Source(path, "", problem=error.strerror or "not readable")
    if file.suffix == ".ipynb":
        return _notebook(path, content)
    text = content.decode(errors="replace")
    return Source(path, text, *_parse(content))


def _notebook(path: str, content: bytes) -> Source:
    try:
        cells = json.loads(content)["cells"]
        code = [
            (number, "".join(cell["source"]).splitlines())
            for number, cell in enumerate(cells, start=1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Source(path, "", problem=f"not a notebook that can be read ({type(error).__name__})")
    lines, positions = [], []
    for cell, line, text in _numbered(code):
        lines.append(text)
        positions.append((cell, line))
    text = "\n".join(lines)
    return Source(path, text, *_parse(text.encode(errors="replace")), tuple(positions))


def _numbered(code: list[tuple[int, list[str]]]) -> Iterator[tuple[int, int, str]]:
    """Yield lines of code cells with their positions; IPython commands become `pass`."""
    for cell, lines in code:
        is_script = bool(lines) and lines[0].startswith("%%")
        for line, text in enumerate(lines, start=1):
            bare = text.lstrip()
            is_command = is_script or COMMAND.match(text) is not None
            indent = "" if is_script else text[: len(text) - len(bare)]
            yield cell, line, f"{indent}pass" if is_command else text


def _parse(content: bytes) -> tuple[ast.Module | None, str, int]:
    """Return the tree; or None, why it does not parse, and the line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in code that is not ours
            tree = ast.parse(content)
    except SyntaxError as error:
        return None, error.msg, error.lineno or 1
    except (ValueError, RecursionError, MemoryError) as error:
        return None, str(error) or TOO_DEEP, 1
    return (tree, "", 1) if _is_shallow(tree) else (None, TOO_DEEP, 1)


def _is_shallow(tree: ast.Module) -> bool:
    """Return whether recursive functions can walk the tree."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return not level
