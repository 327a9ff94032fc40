"""Several processes that share a run, started as launchers start them."""

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

from eval import gpt4v_eval
from eval.errors import EvaluationError
from eval.pope_eval import main
from eval.run.folder import RunFolder
from eval.run.processes import Place, launcher_note, this_place
from scripts.make_scenes import write_scenes

ROOT = Path(__file__).resolve().parents[3]
ALONE = {"RANK", "WORLD_SIZE", "LOCAL_RANK"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(5, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, Place(1, 2, 0)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            },
            Place(3, 4, 1),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Place(0, 1, 0)),  # also without srun
    ],
)
def test_a_process_knows_its_place(variables: dict[str, str], place: Place) -> None:
    assert this_place(variables) == place


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE='two' is no number"),
        ({"WORLD_SIZE": "2"}, "process None of 2"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "process 2 of 2"),
    ],
)
def test_a_place_that_makes_no_sense_is_an_error(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        this_place(variables)


def test_accelerates_single_process_is_pointed_out() -> None:
    variables = {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}

    assert "starts one process" in str(launcher_note(variables))
    assert launcher_note({**variables, "RANK": "0", "WORLD_SIZE": "2"}) is None
    assert launcher_note({"ACCELERATE_USE_CPU": "True"}) is None


def test_a_judge_is_asked_by_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    flags = ["--model", "tiny-llava", "--data-path", str(tmp_path), "--dry-run"]
    assert gpt4v_eval.main(flags) == 2

    assert "a judge is asked by one process" in capsys.readouterr().err


def test_batches_are_dealt_out_once() -> None:
    takers = [[Place(i, 3).takes(batch) for i in range(3)].count(True) for batch in range(20)]

    assert takers == [1] * 20


@pytest.mark.parametrize(
    ("place", "wanted", "gpus", "device"),
    [
        (Place(), None, 4, None),
        (Place(), "cuda:3", 4, "cuda:3"),
        (Place(), "auto", 4, "auto"),
        (Place(5, 8, 1), None, 4, "cuda:1"),
        (Place(5, 8, 1), None, 0, None),
        (Place(5, 8, 1), "cpu", 4, "cpu"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    place: Place, wanted: str | None, gpus: int, device: str | None
) -> None:
    assert place.device(wanted, gpus) == device


@pytest.mark.parametrize(
    ("wanted", "gpus", "sentence"),
    [
        ("cuda:0", 4, "device cuda:0 for 8 processes; each takes a GPU of its own"),
        ("auto", 4, "device auto for 8 processes"),
        (None, 1, "process 1 of this machine finds 1 GPU"),
    ],
)
def test_processes_do_not_meet_on_a_gpu(wanted: str | None, gpus: int, sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        Place(5, 8, 1).device(wanted, gpus)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["key"],)


def test_the_last_process_puts_the_answers_together(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, "run", {}, place=Place(i, 2)) for i in range(2))
    wanted = [(key,) for key in "abcd"]
    with first, second:
        first.append([{"key": "c"}, {"key": "a"}])
        assert first.gathered(key_of, wanted) is None
        second.append([{"key": "b"}, {"key": "d"}])
        with (first.path / "predictions.1.jsonl").open("a") as file:
            file.write('{"key": "e')  # what a kill in mid-write leaves

        assert second.gathered(key_of, wanted) == [{"key": key} for key in "abcd"]

        assert first.gathered(key_of, wanted) is None, "it is done once"
        assert first.gathered(key_of, wanted, found=True) == [{"key": key} for key in "abcd"]
        assert second.gathered(key_of, wanted, found=True) is None
    assert {path.name for path in first.path.glob("pred*")} == {"predictions.jsonl"}


def test_an_answer_that_two_processes_have_counts_once(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, "run", {}, place=Place(i, 2)) for i in range(2))
    with first, second:
        first.append([{"key": "a", "by": 0}])
        second.append([{"key": "a", "by": 1}, {"key": "b", "by": 1}])

        rows = first.gathered(key_of, [("a",), ("b",)])

    assert rows == [{"key": "a", "by": 0}, {"key": "b", "by": 1}]


def test_what_one_process_settles_all_go_by(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, "run", {}, place=Place(i, 2)) for i in range(2))
    with first, second:
        assert first.settled("batches.json", {"tokens": 5}) == {"tokens": 5}
        assert second.settled("batches.json", {"tokens": 7}) == {"tokens": 5}


def test_a_run_is_not_started_twice(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, "run", {}, place=Place(0, 2)),
        pytest.raises(EvaluationError, match="another process is writing"),
        RunFolder(tmp_path, "run", {}),
    ):
        pass


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=40, seed=2014)
    flags = [
        "--model", "tiny-llava", "--device", "cpu", "--pope-type", "all", "--batch-size", "4",
        "--data-path", str(folder / "val2014"), "--pope-path", str(folder / "pope"),
        "--num-workers", "0",
    ]  # fmt: skip
    build = ["--build-from", str(folder / "annotations/instances_val2014.json"), "--limit", "1"]
    assert main([*flags, *build, "--output-dir", str(folder / "first")]) == 0
    return flags


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    assert main([*flags, "--output-dir", str(root)]) == 0
    return run_folder(root)


def run_folder(root: Path) -> Path:
    (folder,) = (root / "pope/tiny-llava").iterdir()
    return folder


def started(flags: list[str], root: Path, count: int) -> list[subprocess.Popen[str]]:
    """Start a run's processes as torchrun and accelerate do."""
    environment = {key: value for key, value in os.environ.items() if key not in ALONE}
    environment["OMP_NUM_THREADS"] = "1"  # as torchrun has it, so that processes share the cores
    return [
        subprocess.Popen(
            [sys.executable, "eval/pope_eval.py", *flags, "--output-dir", str(root)],
            cwd=ROOT,
            env=environment
            | {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finished(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return what the processes printed; all must have succeeded."""
    printed = []
    for process in processes:
        out, err = process.communicate(timeout=3600)
        assert process.returncode == 0, err
        printed.append(out)
    return printed


def same_result(folder: Path, other: Path) -> bool:
    lines = [sorted((f / "predictions.jsonl").read_text().splitlines()) for f in (folder, other)]
    metrics = [(f / "metrics.json").read_text() for f in (folder, other)]
    return folder.name == other.name and lines[0] == lines[1] and metrics[0] == metrics[1]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(
    flags: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    printed = finished(started(flags, tmp_path, 2))

    folder = run_folder(tmp_path)
    assert same_result(folder, undisturbed)
    assert sum("| baseline |" in out for out in printed) == 1, "one process prints the table"
    assert not list(folder.glob("predictions.*.jsonl"))
    assert len(list(folder.glob("costs.*.jsonl"))) == 2
    assert json.loads((folder / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_killed_and_started_again_with_another_number_of_processes(
    flags: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    processes = started(flags, tmp_path, 2)
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline and processes[1].poll() is None:
        files = list(tmp_path.glob("pope/tiny-llava/*/predictions.1.jsonl"))
        if files and files[0].read_text().count("\n") > 20:
            break
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    processes[0].send_signal(signal.SIGINT)
    for process in processes:
        process.communicate()
    killed_at = sum(path.read_text().count("\n") for path in run_folder(tmp_path).glob("pred*"))
    total = len((undisturbed / "predictions.jsonl").read_text().splitlines())
    assert 20 < killed_at < total

    printed = finished(started(flags, tmp_path, 3))

    assert same_result(run_folder(tmp_path), undisturbed)
    assert sum("| baseline |" in out for out in printed) == 1


@pytest.mark.slow
def test_accelerate_starts_the_processes(
    flags: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ALONE}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]

    done = subprocess.run(
        [sys.executable, *launch, "eval/pope_eval.py", *flags, "--output-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert same_result(run_folder(tmp_path), undisturbed)
    assert done.stdout.count("POPE, tiny-llava") == 1
