"""No test changes what others read: the inputs of all tests are the same after the session.

A plugin of the whole suite. Small files are hashed; of large ones size, time and inode count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("configs", "models/tiny-llava", "tests/**/data", "../shared")
HASHED_BYTES = 1 << 20
State = dict[str, tuple[int, int, int, str]]


def state_of_inputs(root: Path = ROOT) -> State:
    """Return what identifies the content of each input file of the suite."""
    return state_of(_files(root))


def state_of(paths: Iterable[Path]) -> State:
    """Return what identifies the content of files."""
    return {str(path): _state(path) for path in paths}


def changes(before: State, after: State) -> list[str]:
    """Return the files that are not as they were, or are gone or new."""
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def _files(root: Path) -> Iterator[Path]:
    for pattern in INPUTS:
        above = pattern.startswith("../")
        folders = [root.parent / pattern[3:]] if above else root.glob(pattern)
        for folder in folders:
            yield from (path for path in folder.rglob("*") if path.is_file())


def _state(path: Path) -> tuple[int, int, int, str]:
    state = path.stat()
    small = state.st_size <= HASHED_BYTES
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
    return state.st_size, state.st_mtime_ns, state.st_ino, digest


class Inputs:
    """Compares them, in the process that starts the workers or in the only one."""

    def __init__(self) -> None:
        self._before = state_of_inputs()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if found := changes(self._before, state_of_inputs()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"\ntests changed input files: {', '.join(found)}", red=True)


def register(config: pytest.Config) -> None:
    """Compare the inputs before and after this session, unless this is a worker of another."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Inputs(), "inputs")
