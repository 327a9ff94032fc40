"""Run folders: found again, resumed, locked, never half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.folder import RunFolder, questions_record
from eval.run.processes import Process

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"model": "m", "seed": 1}


@pytest.mark.parametrize(
    "change", [{"id": 2}, {"image": "b.jpg"}, {"label": "no"}, {"part": "popular"}]
)
def test_a_question_is_its_id_picture_text_label_and_part(change: dict[str, Any]) -> None:
    item = Item(1, "a.jpg", "Is it?", "yes", "random")
    one = questions_record([(item, "Is it?")])

    assert one["random"]["count"] == 1
    assert questions_record([(replace(item, **change), "Is it?")]) != one
    assert questions_record([(item, "Is it? Answer in one word.")]) != one


def test_the_path_follows_from_the_settings(tmp_path: Path) -> None:
    same = RunFolder(tmp_path, "run", dict(reversed(SETTINGS.items())))
    other = RunFolder(tmp_path, "run", {**SETTINGS, "seed": 2})
    path = RunFolder(tmp_path, "run", SETTINGS).path

    assert path == same.path
    assert path.name.startswith("run-")
    assert path != other.path


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from eval.run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), 'run', {'model': 'm', 'seed': 1}):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
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
        folder.begin({"started": "now"})


def test_the_lock_ends_with_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(ValueError, match="broken"),
            RunFolder(tmp_path, "run", SETTINGS),
        ):
            raise ValueError("broken")


def test_processes_of_one_run_have_locks_of_their_own(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, "run", {}, Process(0, 2)),
        RunFolder(tmp_path, "run", {}, Process(1, 2)),
    ):
        for process in (Process(0, 2), Process(1, 2), None):
            with (
                pytest.raises(EvaluationError, match="another process is writing"),
                RunFolder(tmp_path, "run", {}, process),
            ):
                pass


def test_a_place_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with (
        pytest.raises(EvaluationError, match=r"file/run-.* can't be written: Not a directory"),
        RunFolder(tmp_path / "file", "run", SETTINGS),
    ):
        pass

    assert (tmp_path / "file").read_text() == "mine"


def test_run_json_is_written_once_and_notes_resumptions(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run", SETTINGS) as folder:
        for day in ("monday", "tuesday", "wednesday"):
            folder.begin({"started": day})

        content = json.loads((folder.path / "run.json").read_text())

    assert content["settings"] == SETTINGS
    assert content["started"] == "monday"
    assert content["resumed"] == [{"started": "tuesday"}, {"started": "wednesday"}]


def test_what_one_process_settles_all_go_by(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, "run", {}, Process(i, 2)) for i in range(2))
    with first, second:
        assert first.write_once("batches.json", {"tokens": 5}) == {"tokens": 5}
        assert second.write_once("batches.json", {"tokens": 7}) == {"tokens": 5}
