"""A bench that is stopped, whatever stops it, leaves a readable file with all finished rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from scripts.bench import costs, running
from scripts.bench.record import UNFINISHED, Record
from scripts.bench.rounds import Measurement, Measurements
from scripts.bench.rows import Row

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--device", "cpu", "--tiny", "--repeats", "1"]


def read(path: Path) -> Any:
    """Return strict JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_killed_bench_leaves_its_finished_rows(tmp_path: Path) -> None:
    files = tmp_path / "rows.json", tmp_path / "rows.md"
    words = [*TINY, "--sections", "layer", "methods", "--json", files[0], "--markdown", files[1]]
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts/bench/costs.py", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not files[1].exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL

    written = read(files[0])
    assert not written["finished"]
    assert [row["arm"] for row in written["rows"]] == ["plain", "eah", "released"]
    assert all(len(row["values"]) == 1 for row in written["rows"])
    assert UNFINISHED in files[1].read_text()


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the sections that the command has, to be filled."""
    found: dict[str, Any] = {"layer": None, "memory": None, "counting": None}
    monkeypatch.setattr(running, "OWN_SECTIONS", found)
    return found


def section(name: str, error: BaseException | None = None) -> Any:
    """Return a section that ends with an error after its first measurement, if with any."""

    def run(*_: object) -> Measurements:
        yield Measurement(name, {"a": lambda: {"ms": 1.0}}, most=1, warm_up=0)
        if error is not None:
            raise error

    return run


def test_a_section_that_fails_is_a_row_and_the_next_goes_on(
    sections: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections |= {
        "layer": section("first", RuntimeError("no kernel")),
        "memory": section("second", MemoryError()),
        "counting": section("third"),
    }
    file = tmp_path / "rows.json"

    assert costs.main([*TINY, "--sections", *sections, "--json", str(file)]) == 1

    written = read(file)
    assert written["finished"]
    assert [(row["measured"], row["note"]) for row in written["rows"]] == [
        ("first", ""),
        ("layer", "failed: RuntimeError: no kernel"),
        ("second", ""),
        ("memory", "failed: out of memory"),
        ("third", ""),
    ]
    assert "| layer |  | all | failed: RuntimeError: no kernel |  |" in capsys.readouterr().out


def test_what_time_is_left_for_nothing_is_left_out(
    sections: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(running, "free_memory", lambda: None)  # which takes time

    def slow(*_: object) -> Measurements:
        yield Measurement("slow", {"a": lambda: time.sleep(0.4) or {"ms": 1.0}})

    sections |= {"layer": section("first"), "memory": slow, "counting": section("third")}

    assert costs.main([*TINY, "--sections", *sections, "--minutes", "0.005"]) == 0

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert lines == [
        "| first | ms | a | 1.00 (1.00..1.00) | 1.000 (1.000..1.000) |",
        "| slow |  | all | left out: a round takes 0.4 s |  |",
        "| counting |  | all | left out: the time was over |  |",
    ]


def test_ctrl_c_says_where_the_rows_are(
    sections: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections |= {"layer": section("first", KeyboardInterrupt()), "memory": section("second")}
    file = tmp_path / "rows.md"

    assert costs.main([*TINY, "--sections", "layer", "--markdown", str(file)]) == 130

    printed = capsys.readouterr()
    assert "| first | ms | a |" in file.read_text()
    assert printed.out.strip() == file.read_text().strip()
    expected = f"bench: interrupted; every finished row is in the table above and in {file}"
    assert printed.err.splitlines()[-1] == expected


def test_what_can_not_be_written_is_said_before_anything_is_measured(
    sections: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections["layer"] = section("first")

    assert costs.main([*TINY, "--sections", "layer", "--json", str(tmp_path)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench: error: {tmp_path} can't be written: Is a directory")


def test_a_file_of_before_stays_until_a_row_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('{"environment": "before"}')
    record = Record({"device": "none"}, file, None)
    assert "before" in file.read_text()

    record.update([Row("one", "ms", "a", (1.0, float("inf")))])

    (row,) = read(file)["rows"]
    assert row["values"] == [1.0, None]


def test_files_that_no_bench_wrote_and_no_files_are_refused(tmp_path: Path) -> None:
    mine, other = tmp_path / "pyproject.toml", tmp_path / "rows.json"
    mine.write_text("[project]")
    for found, said in (
        ((mine, None), "--overwrite"),
        ((None, mine), "--overwrite"),
        ((other, other), "name a file for each"),
        ((Path("/dev/null"), None), "is not a file"),
        ((tmp_path, None), "Is a directory"),
    ):
        with pytest.raises(EvaluationError, match=said):
            Record({"device": "none"}, *found)
    assert mine.read_text() == "[project]"
    with Record({"device": "none"}, mine, None, overwrite=True).print_at_end():
        pass
    assert read(mine)["finished"]


def test_a_device_that_is_not_here_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cuda:99", "gpu", "meta"):
        with pytest.raises(SystemExit):
            costs.main(["--device", name])
        assert f"'{name}' is not a device of this machine" in capsys.readouterr().err


def test_rows_that_have_ended_are_written_at_once(tmp_path: Path) -> None:
    """However short before the file was written for rows with more rounds to come."""
    file = tmp_path / "rows.json"
    record = Record({"device": "none"}, file, None)
    for name in ("first", "second"):
        record.update([Row(name, "ms", "a", (1.0,))])
        record.add([Row(name, "ms", "a", (1.0, 2.0))], [f"{name} has ended"])

    written = read(file)
    assert [(row["measured"], row["values"]) for row in written["rows"]] == [
        ("first", [1.0, 2.0]),
        ("second", [1.0, 2.0]),
    ]
    assert written["compared"] == ["first has ended", "second has ended"]
