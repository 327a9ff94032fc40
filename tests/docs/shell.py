"""Run the commands of a page in this process: a process each would import torch each time."""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docs.blocks import Block, command_lines

ENTRANCES = {"eah": "eah.__main__", "eah.swap": "eah.swap"}
PIPE = "|"


@dataclass(frozen=True)
class Done:
    """What a block printed on standard output and error, and its last exit status."""

    output: str
    errors: str
    status: int

    @property
    def seen(self) -> str:
        """What a reader sees: errors only where a command failed."""
        return self.output + (self.errors if self.status else "")


def module_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the module and the arguments of a command of this project; None for another one."""
    match words:
        case ["python", "-m", name, *rest] if name in ENTRANCES:
            return ENTRANCES[name], rest
        case ["python", path, *rest] if path.startswith(("eval/", "scripts/")):
            return path.removesuffix(".py").replace("/", "."), rest
    return None


def main_of(module: str) -> Callable[[list[str]], int | None]:
    return importlib.import_module(module).main  # type: ignore[no-any-return]


def expanded(words: list[str]) -> Iterator[str]:
    for word in words:
        found = sorted(glob.glob(word)) if any(mark in word for mark in "*?[") else []
        yield from found or [word]


@contextlib.contextmanager
def arguments_of_the_process(words: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = words
    try:
        yield
    finally:
        sys.argv = before


def run_command(line: str) -> int:
    """Run one command line and return its exit status."""
    words = list(expanded(shlex.split(line, comments=True)))
    match words:
        case ["ls", *paths]:
            for path in map(Path, paths):
                print(*(sorted(os.listdir(path)) if path.is_dir() else [path]), sep="\n")
            return 0
        case ["cat", path]:
            print(Path(path).read_text(encoding="utf-8"), end="")
            return 0
        case ["head", "-n", count, path]:
            lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
            print("".join(lines[: int(count)]), end="")
            return 0
    found = module_of(words)
    assert found is not None, (
        f"mark the block with '# needs: ...', or write a command of ours: {line}"
    )
    module, arguments = found
    with arguments_of_the_process([words[1], *arguments]):
        try:
            return main_of(module)(arguments) or 0
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)


def run_block(block: Block, names: dict[str, Any]) -> Done:
    """Run a block; names are the variables of the page's Python blocks before it."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        if block.language == "python":
            try:
                exec(compile(block.code, "<page>", "exec"), names)
            except Exception as error:
                if block.output is None:
                    raise
                status = 1
                errors.write(f"{type(error).__name__}: {error}\n")
        else:
            for line in command_lines(block.code):
                status = run_command(line)
                if status:
                    break
    return Done(output.getvalue(), errors.getvalue(), status)


@functools.cache
def _help(module: str, *start: str) -> str:
    text = io.StringIO()
    with (
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        main_of(module)([*start, "--help"])
    return text.getvalue().replace("_", "-")


def unknown_flags(words: list[str]) -> list[str]:
    """Return the flags of a command of this project that its help does not name."""
    found = module_of(words)
    if found is None:
        return []
    module, arguments = found
    if "--task" in arguments:  # each benchmark has flags of its own
        at = arguments.index("--task")
        start = tuple(arguments[at : at + 2])
    else:
        start = tuple(word for word in arguments[:1] if not word.startswith("-"))
    named = set(re.findall(r"--[A-Za-z][\w-]*", _help(module, *start) or _help(module)))
    flags = (word.split("=")[0] for word in arguments if word.startswith("--"))
    return [flag for flag in flags if flag.replace("_", "-") not in named]
