"""What is checked in every test of the evaluations: tables fit, and inputs stay as they are."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from eah import exit_status
from eval.run.flag_parser import FlagParser
from tests.eval.judge_stub import SECRET, Stub, serve
from tests.eval.tables import widest_table_line
from tests.inputs import State, changes, state_of

# Flags of what is written, not read; and where in a folder that is read a command writes.
WRITTEN: Final = ("json", "save_path", "report", "output", "output_dir", "cache")
KEPT_OUT: Final = ("report", "set_aside", "judgements.jsonl", "metrics.json")
MOST_FILES: Final = 3000


@pytest.fixture
def wide_tables() -> None:
    """Taken by a test that prints tables of any width, as `--wide` does."""


@pytest.fixture(autouse=True)
def tables_fit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose process a command printed a table that is wider than 100 columns."""
    own, widest = builtins.print, [""]

    def printing(*values: object, **options: Any) -> None:
        lines = "".join(str(value) + "\n" for value in values).splitlines()
        widest.extend(line for line in lines if widest_table_line(line) > len(widest[-1]))
        own(*values, **options)

    monkeypatch.setattr(builtins, "print", printing)
    yield
    if "wide_tables" not in request.fixturenames:
        assert len(widest[-1]) <= 100, widest[-1]


@pytest.fixture
def judge_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the judge's key, and send no request of a test through a proxy or elsewhere."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Return a judge that serves until the test ends."""
    with serve(Stub()) as one:
        yield one


@pytest.fixture
def inputs_change() -> None:
    """Taken by a test that itself changes an input while a command reads it."""


@pytest.fixture(autouse=True)
def inputs_stay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose process a command changed or removed what its flags name as an input."""
    states: list[State] = []
    changed: list[str] = []
    parse, finish = FlagParser.parse, exit_status.finish

    def parsing(self: FlagParser, arguments: Sequence[str] | None) -> dict[str, Any]:
        given = parse(self, arguments)
        states.append(state_of(_inputs_of(given)))
        return given

    def finishing(*arguments: Any, **options: Any) -> int:
        start = len(states)
        status = finish(*arguments, **options)
        for before in states[start:]:
            after = state_of(path for path in map(Path, before) if path.is_file())
            changed.extend(changes(_contents(before), _contents(after)))
        return status

    monkeypatch.setattr(FlagParser, "parse", parsing)
    monkeypatch.setattr(exit_status, "finish", finishing)
    yield
    if "inputs_change" not in request.fixturenames:
        assert not changed


def _inputs_of(given: dict[str, Any]) -> Iterator[Path]:
    """Yield the files that flags name as inputs, also those in folders."""
    written = {_real(of) for name, of in given.items() if name in WRITTEN and of}
    for name, value in given.items():
        if name in WRITTEN or not isinstance(value, (str, Path)):
            continue
        try:
            path = Path(value)
            found = list(path.rglob("*"))[:MOST_FILES] if path.is_dir() else [path]
            yield from (
                one
                for one in found
                if one.is_file() and not _is_written(one, path) and _real(one) not in written
            )
        except (OSError, ValueError):
            continue  # a name that no system takes


def _contents(state: State) -> State:
    """Leave size and hash of small files: a report may be written again as it was."""
    return {name: (of[0], 0, 0, of[3]) if of[3] else of for name, of in state.items()}


def _real(path: Any) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a name that no system takes
        return ""


def _is_written(path: Path, folder: Path) -> bool:
    below = path.relative_to(folder).parts if path != folder else ()
    return any(part in KEPT_OUT or part.startswith((".lock", ".chair")) for part in below)
