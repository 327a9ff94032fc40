"""The POPE command as a user runs it, on the embedded model: results, resume, bad input."""

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
import torch

import models
from eval.pope_eval import main
from scripts.make_scenes import write_scenes

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "eval/pope_eval.py"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=12, seed=2014)
    return folder


@pytest.fixture
def flags(scenes: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--build-from", str(scenes / "annotations/instances_val2014.json"),
        "--pope-path", str(tmp_path / "pope"), "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def run_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs/pope/tiny-llava").iterdir()
    return folder


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_run_writes_its_folder_and_prints_its_table(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--pope-type", "all"]) == 0

    folder, printed = run_folder(tmp_path), capsys.readouterr().out
    rows = predictions(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    run = json.loads((folder / "run.json").read_text())
    keys = [(row["method"], row["pope_type"], row["question_id"]) for row in rows]
    count = run["settings"]["questions"]["random"]["count"]
    assert len(keys) == len(set(keys)) == 2 * 3 * count
    assert [(r["method"], r["pope_type"]) for r in metrics["results"]] == [
        (method, kind)
        for method in ("baseline", "eah")
        for kind in ("random", "popular", "adversarial")
    ]
    assert set(metrics["results"][0]["scores"]) == {"opera", "pope", "strict"}
    assert all(("eah" in row) == (row["method"] == "eah") for row in rows)
    assert all(found["image_tokens"] == 64 for row in rows for found in row.get("eah", []))
    assert run["settings"]["protocol"] == metrics["protocol"] == "opera"
    assert run["versions"]["torch"] == torch.__version__
    assert "| eah      | adversarial |" in printed
    assert "EAH in layer 1: head" in printed
    assert str(folder) in printed


def test_the_same_command_again_asks_the_model_nothing(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(flags) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(models, "load", None)

    assert main(flags) == 0

    assert capsys.readouterr().out == first


def test_a_changed_setting_is_another_folder(flags: list[str], tmp_path: Path) -> None:
    for extra in ([], ["--THRES", "0.01"], ["--LAYER_NUM", "2"], ["--seed", "1", "--limit", "4"]):
        pope = [] if "--seed" not in extra else ["--pope-path", str(tmp_path / "other")]
        assert main([*flags, *extra, *pope]) == 0

    assert len(list((tmp_path / "runs/pope/tiny-llava").iterdir())) == 4


@pytest.mark.parametrize("extra", [[], ["--sample"], ["--beam", "2"]])
def test_batch_size_does_not_change_greedy_answers(
    flags: list[str], tmp_path: Path, extra: list[str]
) -> None:
    answers = []
    for size in ("1", "7"):
        output = tmp_path / f"runs{size}"
        arguments = [*flags, *extra, "--batch-size", size, "--output-dir", str(output)]
        assert main([*arguments, "--limit", "12"]) == 0
        rows = predictions(next((output / "pope/tiny-llava").iterdir()))
        answers.append({(r["method"], r["question_id"]): r["answer"] for r in rows})

    assert answers[0].keys() == answers[1].keys()
    if "--sample" not in extra:
        assert answers[0] == answers[1]


@pytest.mark.parametrize("extra", [[], ["--sample"]])
def test_killed_and_started_again_gives_the_undisturbed_result(
    flags: list[str], tmp_path: Path, extra: list[str]
) -> None:
    arguments = [*flags, "--pope-type", "all", "--batch-size", "4", *extra]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_lines(process, tmp_path, 20)
        process.send_signal(signal.SIGKILL)
    folder = run_folder(tmp_path)
    killed_at = len(predictions(folder))
    with (folder / "predictions.jsonl").open("a") as file:
        file.write('{"method": "baseline", "pope_ty')  # what a kill in mid-write leaves

    assert main(arguments) == 0

    undisturbed = [*arguments, "--output-dir", str(tmp_path / "undisturbed")]
    assert main(undisturbed) == 0
    other = next((tmp_path / "undisturbed/pope/tiny-llava").iterdir())
    assert 0 < killed_at < len(predictions(other))
    assert predictions(folder) == predictions(other)
    assert (folder / "metrics.json").read_text() == (other / "metrics.json").read_text()
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1


def wait_for_lines(process: subprocess.Popen[Any], tmp_path: Path, count: int) -> None:
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline and process.poll() is None:
        files = list(tmp_path.glob("runs/pope/tiny-llava/*/predictions.jsonl"))
        if files and files[0].read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    process.kill()
    raise TimeoutError(f"no {count} answers within an hour, or the command ended")


def test_ctrl_c_keeps_the_answers(flags: list[str], tmp_path: Path) -> None:
    arguments = [*flags, "--pope-type", "all", "--batch-size", "2"]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_lines(process, tmp_path, 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()

    assert process.returncode == 130
    assert "pope_eval: interrupted; what was answered is kept" in errors
    assert "Traceback" not in errors
    assert len(predictions(run_folder(tmp_path))) >= 10


def test_saved_answers_are_scored_without_a_model(
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([*flags, "--pope-type", "all"]) == 0
    table = capsys.readouterr().out.split("\n\n")[1]
    monkeypatch.setattr(models, "load", None)
    saved = run_folder(tmp_path) / "predictions.jsonl"

    assert main(["--answers", str(saved), "--pope-type", "all", *flags[-4:-2]]) == 0

    scored = capsys.readouterr().out.splitlines()
    rows = [line.rsplit("|", 4)[0] for line in table.splitlines()]  # times are the run's alone
    assert len(rows) > 8
    assert [line.rsplit("|", 1)[0] for line in scored if line.startswith("|")] == rows


def test_saturated_prompts_are_warned_about_once_and_recorded(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--THRES", "1e-12", "--method", "eah", "--limit", "24"]) == 0

    errors = capsys.readouterr().err
    metrics = json.loads((run_folder(tmp_path) / "metrics.json").read_text())
    assert errors.count("every image token passes the threshold") == 1
    assert "no baseline arm in this run" in errors
    assert metrics["eah"][0]["saturated"] == metrics["eah"][0]["prompts"] == 24


def test_the_model_is_accurate_on_scenes_it_never_saw(tmp_path: Path) -> None:
    """Held out: training used seed 1. Greedy baseline, POPE random, 200 scenes."""
    write_scenes(tmp_path, count=200, seed=2014)
    arguments = [
        "--model", "tiny-llava", "--device", "cpu", "--method", "baseline", "--batch-size", "64",
        "--data-path", str(tmp_path / "val2014"), "--output-dir", str(tmp_path / "runs"),
        "--build-from", str(tmp_path / "annotations/instances_val2014.json"),
    ]  # fmt: skip

    assert main(arguments) == 0

    metrics = json.loads((run_folder(tmp_path) / "metrics.json").read_text())
    scores = metrics["results"][0]["scores"]["opera"]
    assert scores["total"] >= 1000
    assert scores["accuracy"] >= 0.90


@pytest.mark.parametrize("start", [COMMAND, [sys.executable, "-m", "eval.pope_eval"]])
def test_both_ways_to_start_it_work(start: list[str]) -> None:
    done = subprocess.run([*start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "--THRES" in done.stdout
    assert "--scale_factor" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "llava-15"], "model 'llava-15' is unknown: did you mean 'llava-1.5'"),
        (["--method", "base"], "method 'base' is unknown: did you mean 'baseline'"),
        (["--data-path", "nowhere"], "--data-path nowhere is not a folder"),
        (["--data-path", "."], "pictures are not in ."),
        (["--checkpoint", "eah"], "has no config.json"),
        (["--gpu-id", "77"], "GPU 77 does not exist"),
        (["--THRES", "1.5"], r"threshold=1.5, but a mean attention weight lies in (0, 1)"),
        (
            ["--LAYER_NUM", "9"],
            "layers=(9,) but LlavaForConditionalGeneration has no layer 9 with softmax",
        ),
        (["--HEAD_NUM", "8"], "head=8 but layer 1 has 8 heads (0..7)"),
        (["--preset", "papr"], "preset 'papr' is unknown: did you mean 'paper'"),
        (["--protocol", "oprea"], "did you mean 'opera'"),
        (["--scale_factor", "50"], "method opera: Opera is a beam search, but one beam was asked"),
        (
            ["--scale_factor", "50", "--method", "eah"],
            "--scale_factor is a setting of opera, which no arm of this run has (eah)",
        ),
        (["--method", "vcd", "--beam", "5"], "method vcd: Vcd chooses one token after another"),
        (["--config", "absent.yaml"], "config absent.yaml can't be read"),
    ],
)
def test_bad_input_is_one_sentence(
    flags: list[str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--gpu-id" in arguments:
        flags = [*flags[:2], *flags[4:]]

    assert main([*flags, *arguments]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_missing_inputs_say_what_to_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.pope_eval.QUESTION_FOLDERS", (tmp_path / "absent",))
    assert main(["--model", "tiny-llava"]) == 2
    assert "no question files: pass --pope-path" in capsys.readouterr().err
    assert main(["--model", "tiny-llava", "--pope-path", str(tmp_path)]) == 2
    assert "coco_pope_random.json does not exist" in capsys.readouterr().err


def test_an_unreadable_picture_stops_the_run_and_nothing_is_lost(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    write_scenes(tmp_path / "made", count=12, seed=2014)
    (tmp_path / "made/val2014").rename(pictures)
    flags = [*flags, "--data-path", str(pictures), "--batch-size", "6"]
    last = predictions_image(flags, tmp_path)
    size = (pictures / last).stat().st_size
    (pictures / last).write_bytes(b"no picture".ljust(size))
    flags = [*flags, "--output-dir", str(tmp_path / "damaged")]

    assert main(flags) == 2

    assert f"{last} can't be read" in capsys.readouterr().err
    folder = next((tmp_path / "damaged/pope/tiny-llava").iterdir())
    assert len(predictions(folder)) > 0


def predictions_image(flags: list[str], tmp_path: Path) -> str:
    """Run once and return the picture that is asked about last."""
    assert main(flags) == 0
    return str(predictions(run_folder(tmp_path))[-1]["image"])


def test_other_question_files_are_not_overwritten(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pope/coco_pope_popular.json"
    path.parent.mkdir()
    path.write_text("mine")

    assert main(flags) == 2

    assert "exists and holds other questions" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_nothing_of_the_environment_leaks_into_a_run(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--limit", "6"]) == 0
    text = (run_folder(tmp_path) / "run.json").read_text()

    assert os.environ.get("HOME", "/nonexistent") + "/." not in text
