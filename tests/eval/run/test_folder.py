"""Run folders: found again, resumed, locked, never half-written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.writing import write_atomically
from eval.run.folder import PREDICTIONS, RunFolder, keyed

SETTINGS = {"model": "m", "seed": 1}


def test_the_path_follows_from_the_settings(tmp_path: Path) -> None:
    same = RunFolder(tmp_path, "run", dict(reversed(SETTINGS.items())))
    other = RunFolder(tmp_path, "run", {**SETTINGS, "seed": 2})

    assert RunFolder(tmp_path, "run", SETTINGS).path == same.path
    assert RunFolder(tmp_path, "run", SETTINGS).path != other.path


def test_rows_come_back_and_a_cut_off_line_is_dropped(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        folder.append([{"a": 1}, {"a": "ü\n"}])
        with (folder.path / PREDICTIONS).open("ab") as file:
            file.write('{"a": 3, "text": "ü'.encode()[:-1])  # cut inside a character

        assert folder.predictions() == [{"a": 1}, {"a": "ü\n"}]
        folder.append([{"a": 4}])
        assert folder.predictions() == [{"a": 1}, {"a": "ü\n"}, {"a": 4}]


def test_a_text_may_hold_any_character_that_ends_a_line(tmp_path: Path) -> None:
    rows = [{"caption": "a\u2028b\x85c\x0bd\x1ee\r\nf"}, {"caption": ""}]
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        folder.append(rows)

        assert folder.predictions() == rows


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        (folder.path / PREDICTIONS).write_text('{"a": 1}\n{"a":\n{"a": 2}\n')

        with pytest.raises(EvaluationError, match="line 2 is damaged"):
            folder.predictions()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from eval.run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), 'run', {'model': 'm', 'seed': 1}):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with (
            pytest.raises(EvaluationError, match="another process is writing to"),
            RunFolder(tmp_path, "run", SETTINGS),
        ):
            pass
        other.send_signal(signal.SIGKILL)
    with RunFolder(tmp_path, "run", SETTINGS) as folder:  # a killed process leaves no lock
        assert folder.predictions() == []


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(EvaluationError, match="No space left on device; what was written before"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.json"]


def test_a_full_disk_keeps_whole_lines(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the system refuses in the middle of a line."""
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        folder.append([{"a": 1}])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(EvaluationError, match="can't be written"):
                folder.append([{"a": "x" * 200}])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)

        assert (folder.path / PREDICTIONS).stat().st_size == 100
        assert folder.predictions() == [{"a": 1}]


def test_run_json_is_written_once_and_notes_resumptions(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        folder.begin({"started": "monday"})
        folder.begin({"started": "tuesday"})

        content = json.loads((folder.path / "run.json").read_text())

    assert content["settings"] == SETTINGS
    assert content["started"] == "monday"
    assert content["resumed"] == [{"started": "tuesday"}]


def test_a_recorded_duplicate_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="recorded twice"):
        keyed([{"id": 1}, {"id": 1}], lambda row: (row["id"],))
