"""Several processes that share a run, started as launchers start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.run.processes import Process, launcher_note, this_process
from tests.eval.forks import PLACE, Ended, Forks
from tests.eval.small_runs import ROOT, lines_of, numbers_of, only_run, pope_flags, same_answers


@pytest.mark.parametrize(
    ("variables", "process"),
    [
        ({}, Process(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Process(5, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Process(1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, Process(1, 2, 0)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            },
            Process(3, 4, 1),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Process(0, 1, 0)),  # also without srun
    ],
)
def test_a_process_knows_its_number(variables: dict[str, str], process: Process) -> None:
    assert this_process(variables) == process


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE='two' is not a number"),
        ({"WORLD_SIZE": "2"}, "process None of 2"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "process 2 of 2"),
    ],
)
def test_a_place_that_makes_no_sense_is_an_error(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        this_process(variables)


def test_accelerates_single_process_is_pointed_out() -> None:
    variables = {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}

    assert "starts one process" in str(launcher_note(variables))
    assert launcher_note({**variables, "RANK": "0", "WORLD_SIZE": "2"}) is None
    assert launcher_note({"ACCELERATE_USE_CPU": "True"}) is None


def test_a_judge_is_asked_by_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval import gpt4v_eval

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    flags = ["--model", "tiny-llava", "--data-path", str(tmp_path), "--dry-run"]
    assert gpt4v_eval.main(flags) == 2

    assert "judging uses one process" in capsys.readouterr().err


def test_batches_are_dealt_out_once() -> None:
    takers = [
        [Process(i, 3).answers_batch(batch) for i in range(3)].count(True) for batch in range(20)
    ]

    assert takers == [1] * 20


@pytest.mark.parametrize(
    ("process", "wanted", "gpus", "device"),
    [
        (Process(), None, 4, None),
        (Process(), "cuda:3", 4, "cuda:3"),
        (Process(), "auto", 4, "auto"),
        (Process(5, 8, 1), None, 4, "cuda:1"),
        (Process(5, 8, 1), None, 0, None),
        (Process(5, 8, 1), "cpu", 4, "cpu"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    process: Process, wanted: str | None, gpus: int, device: str | None
) -> None:
    assert process.device(wanted, gpus) == device


@pytest.mark.parametrize(
    ("wanted", "gpus", "sentence"),
    [
        ("cuda:0", 4, "device cuda:0 for 8 processes, but each process needs its own GPU"),
        ("auto", 4, "device auto for 8 processes"),
        (None, 1, "process 1 of this machine finds 1 GPU"),
    ],
)
def test_processes_do_not_meet_on_a_gpu(wanted: str | None, gpus: int, sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        Process(5, 8, 1).device(wanted, gpus)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*pope_flags(tmp_path_factory.mktemp("scenes"), 10), "--batch-size", "4"]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], server: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    assert server.run([*flags, "--output-dir", str(root)]).status == 0
    return only_run(root)


def start(server: Forks, flags: list[str], root: Path, count: int) -> list[int]:
    """Start a run's processes as torchrun and accelerate do."""
    return [
        server.start(
            [*flags, "--output-dir", str(root)],
            {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index)},
        )
        for index in range(count)
    ]


def wait(server: Forks, processes: list[int]) -> list[Ended]:
    """Return what the processes left; all must have succeeded."""
    ended = [server.wait(process) for process in processes]
    assert [one.status for one in ended] == [0] * len(processes), ended
    return ended


def is_same(run: Path, other: Path) -> bool:
    """Return whether two runs have the same answers and numbers."""
    metrics = [numbers_of(one / "report/metrics.json") for one in (run, other)]
    same = same_answers(run, other, ["baseline", "eah"])
    return run.name == other.name and same and metrics[0] == metrics[1]


def test_two_processes_give_the_result_of_one(
    flags: list[str], server: Forks, undisturbed: Path, tmp_path: Path
) -> None:
    ended = wait(server, start(server, flags, tmp_path, 2))

    run = only_run(tmp_path)
    assert is_same(run, undisturbed)
    assert sum("| baseline |" in one.out for one in ended) == 1, "one process prints the table"
    assert sum("is done; the last one prints" in one.err for one in ended) == 1
    assert {path.name for path in (run / "arms/eah").iterdir()} == {
        "arm.json", "answers.jsonl", "costs.jsonl",
    }  # fmt: skip
    info = json.loads((run / "arms/eah/arm.json").read_text())
    assert info["processes"] == 2
    assert len((run / "arms/eah/costs.jsonl").read_text().splitlines()) == len(
        (undisturbed / "arms/eah/costs.jsonl").read_text().splitlines()
    )


def test_more_processes_than_batches_give_one_result(
    flags: list[str], server: Forks, tmp_path: Path
) -> None:
    few = [*flags, "--limit", "3"]
    ended = wait(server, start(server, few, tmp_path, 3))

    assert sum("| baseline |" in one.out for one in ended) == 1
    assert len(lines_of(only_run(tmp_path), "eah")) == 3
    again = wait(server, start(server, few, tmp_path, 2))
    assert sum("| baseline |" in one.out for one in again) == 1


def test_killed_and_started_again_with_another_number_of_processes(
    flags: list[str], server: Forks, undisturbed: Path, tmp_path: Path
) -> None:
    processes = start(server, flags, tmp_path, 2)
    while server.is_running(processes[1]):
        files = list(tmp_path.glob("pope/tiny-llava/*/arms/eah/answers.1.jsonl"))
        if files and files[0].read_text().count("\n") >= 8:
            break
        time.sleep(0.005)
    os.kill(processes[1], signal.SIGKILL)
    os.kill(processes[0], signal.SIGINT)
    assert server.wait(processes[1]).status == -signal.SIGKILL
    server.wait(processes[0])
    files = list((only_run(tmp_path) / "arms").glob("*/answers*.jsonl"))
    assert (
        8
        <= sum(path.read_text().count("\n") for path in files)
        < 2 * len(lines_of(undisturbed, "eah"))
    )
    with (only_run(tmp_path) / "arms/eah/answers.1.jsonl").open("a") as file:
        file.write('{"id": 3, "im')

    ended = wait(server, start(server, [*flags, "--batch-size", "6"], tmp_path, 3))

    assert is_same(only_run(tmp_path), undisturbed)
    assert sum("| baseline |" in one.out for one in ended) == 1


def test_what_processes_left_is_finished_by_one(
    flags: list[str], server: Forks, undisturbed: Path, tmp_path: Path
) -> None:
    (ended,) = wait(
        server,
        [server.start(
            [*flags, "--output-dir", str(tmp_path)],
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        )],
    )  # fmt: skip
    assert "process 1 of 2 is done; the last one prints the result" in ended.err
    assert ended.out == ""

    assert server.run([*flags, "--output-dir", str(tmp_path)]).status == 0

    assert is_same(only_run(tmp_path), undisturbed)
    assert len(list(only_run(tmp_path).glob("arms/*/answers*.jsonl"))) == 2


def test_a_process_is_not_started_twice(flags: list[str], server: Forks, tmp_path: Path) -> None:
    (first,) = start(server, flags, tmp_path, 2)[:1]
    while server.is_running(first) and not list(tmp_path.rglob("answers.0.jsonl")):
        time.sleep(0.005)

    second = server.run([*flags, "--output-dir", str(tmp_path)])

    assert second.status == 2
    assert "another process is writing to" in second.err
    server.wait(first)


@pytest.mark.slow
def test_accelerate_starts_the_processes(
    flags: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in PLACE}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]

    done = subprocess.run(
        [sys.executable, *launch, "eval/pope_eval.py", *flags, "--output-dir", str(tmp_path)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert is_same(only_run(tmp_path), undisturbed)
    assert done.stdout.count("POPE, tiny-llava") == 1
