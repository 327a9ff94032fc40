"""The POPE command as a user runs it, on the embedded model: results, resume, bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from eval.files.answers import Answer
from eval.output.table import WIDTH
from eval.pope_eval import main
from eval.run.recorded import RecordedRun, read_run
from eval.tasks.pope.task import Pope
from eval.tasks.yes_no.parsers import PARSERS
from scripts.scenes.make import write_scenes
from tests.eval.small_runs import same_answers

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "eval/pope_eval.py"]
TYPES = ("random", "popular", "adversarial")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=12, seed=2014)
    return folder


def flags_for(scenes: Path, folder: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--build-from", str(scenes / "annotations/instances_val2014.json"),
        "--pope-path", str(folder / "pope"), "--output-dir", str(folder / "runs"),
    ]  # fmt: skip


@pytest.fixture
def flags(scenes: Path, tmp_path: Path) -> list[str]:
    return flags_for(scenes, tmp_path)


def run_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs/pope/tiny-llava").iterdir()
    return folder


def run_of(tmp_path: Path) -> RecordedRun:
    return read_run(run_folder(tmp_path))


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report/metrics.json").read_text())
    return found


def texts_of(answers: Sequence[Answer]) -> dict[Any, str]:
    return {answer.item.key: answer.text for answer in answers}


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Return folder, flags and printed text of a whole run, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("finished")
    flags = [*flags_for(scenes, folder), "--pope-type", "all"]
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(flags) == 0
    return folder, flags, printed.getvalue()


@pytest.fixture
def copied(finished: tuple[Path, list[str], str], tmp_path: Path) -> list[str]:
    """Return flags for a copy of the whole run."""
    folder, flags, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return [flag.replace(str(folder), str(tmp_path)) for flag in flags]


def test_a_run_writes_its_folder_and_prints_its_table(
    finished: tuple[Path, list[str], str],
) -> None:
    run, printed = run_of(finished[0]), finished[2]

    metrics = metrics_of(run.path)
    asked = json.loads((run.path / "run.json").read_text())
    count = run.settings["questions"]["random"]["count"]
    assert list(run.finished()) == ["baseline", "eah"]
    for name, arm in run.arms.items():
        assert len(texts_of(arm.answers)) == len(arm.answers) == 3 * count
        tokens = {found.image_tokens for answer in arm.answers for found in answer.findings}
        assert tokens == ({64} if name == "eah" else set())
        assert all(bool(answer.findings) == (name == "eah") for answer in arm.answers)
        lines = (run.path / f"arms/{name}/answers.jsonl").read_text().splitlines()
        assert [json.loads(line)["part"] for line in lines] == [
            t for t in TYPES for _ in range(count)
        ]
    assert [(r["arm"], r["part"], r["n"], r["total"]) for r in metrics["results"]] == [
        (arm, part, 3 * count if part == "mean" else count, part == "mean")
        for arm in ("baseline", "eah")
        for part in (*TYPES, "mean")
    ]
    assert set(metrics["parsers"]) == set(PARSERS)
    assert metrics["parser"] == metrics["protocol"] == run.settings["protocol"] == "opera"
    assert asked["versions"]["torch"] == torch.__version__
    assert "| eah      | adversarial |" in printed
    assert "| eah |     1 |" in printed  # its layer, with the heads
    assert str(run.path) in printed
    assert (run.path / "report/table.md").read_text() in printed + "\n"
    assert all(len(line) <= WIDTH for line in printed.splitlines() if line.startswith("|"))


def test_numbers_are_those_of_a_count_by_hand(finished: tuple[Path, list[str], str]) -> None:
    """OPERA's parser takes what this model says, Yes or No, for yes and no."""
    run = run_of(finished[0])
    metrics = metrics_of(run.path)
    accuracy: dict[tuple[str, str], float] = {}
    for name, arm in run.arms.items():
        for part in TYPES:
            right = [a.text.lower()[: len(a.item.label)] == a.item.label for a in arm.answers
                     if a.item.part == part]  # fmt: skip
            accuracy[name, part] = sum(right) / len(right)
        accuracy[name, "mean"] = sum(accuracy[name, part] for part in TYPES) / 3

    found = {(r["arm"], r["part"]): r["numbers"]["accuracy"]["value"] for r in metrics["results"]}
    assert found == pytest.approx(accuracy)
    for one in metrics["differences"]:
        expected = accuracy["eah", one["part"]] - accuracy["baseline", one["part"]]
        assert (one["arm"], one["reference"]) == ("eah", "baseline")
        assert one["numbers"]["accuracy"]["value"] == pytest.approx(expected)
    assert [one["part"] for one in metrics["differences"]] == [*TYPES, "mean"]
    rows = list(csv.DictReader((run.path / "report/table.csv").open()))
    assert {(r["arm"], r["part"]): float(r["accuracy"]) for r in rows} == pytest.approx(accuracy)
    for (arm, part), value in accuracy.items():
        (line,) = [x for x in finished[2].splitlines() if x.startswith(f"| {arm:8} | {part:11} |")]
        assert line.split("|")[3].split()[0] == f"{100 * value:.2f}"


def test_the_same_command_again_asks_the_model_nothing(
    finished: tuple[Path, list[str], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, flags, printed = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(models, "load", None)

    assert main(flags) == 0

    assert capsys.readouterr().out == printed
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_changed_setting_of_eah_is_another_arm_and_other_questions_another_folder(
    copied: list[str], tmp_path: Path
) -> None:
    name = run_folder(tmp_path).name
    for extra in (["--THRES", "0.01"], ["--LAYER_NUM", "2"], ["--batch-size", "3"]):
        assert main([*copied, *extra, "--dry-run"]) == 0
        assert run_folder(tmp_path).name == name

    assert main([*copied, "--limit", "4", "--LAYER_NUM", "2", "--method", "eah"]) == 0
    assert main([*copied, "--limit", "4", "--beam", "2", "--method", "baseline"]) == 0

    folders = {path.name: set(read_run(path).arms)
               for path in (tmp_path / "runs/pope/tiny-llava").iterdir()}  # fmt: skip
    assert len(folders) == 3
    assert folders[name] == {"baseline", "eah"}
    assert sorted(map(sorted, folders.values())) == [
        ["baseline"], ["baseline", "eah"], ["eah@layers=2"],
    ]  # fmt: skip


def test_a_dry_run_says_what_is_left_and_writes_nothing(
    copied: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(models, "load", None)

    assert main([*copied, "--method", "baseline", "vcd", "--dry-run"]) == 0

    printed = capsys.readouterr().out
    total = run_of(tmp_path).total
    assert f"run folder: {run_folder(tmp_path)}" in printed
    assert f"questions: {total}" in printed
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert ["baseline", str(total), "0"] in rows
    assert ["vcd", "0", str(total)] in rows
    assert sorted(tmp_path.rglob("*")) == before


def test_an_answered_arm_is_not_asked_again(
    copied: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = run_folder(tmp_path) / "arms"
    before = {path: path.read_bytes() for path in arms.rglob("*") if path.is_file()}
    asked: list[object] = []
    answer_batch = models.VLM.answer_batch

    def counted(self: models.VLM, *rest: Any) -> Any:
        asked.append(rest[3])
        return answer_batch(self, *rest)

    monkeypatch.setattr(models.VLM, "answer_batch", counted)

    assert main([*copied, "--method", "baseline", "eah", "dola"]) == 0

    assert {type(decoding).__name__ for decoding in asked} == {"Dola"}
    assert {path: path.read_bytes() for path in before} == before
    assert set(run_of(tmp_path).finished()) == {"baseline", "eah", "dola"}


@pytest.mark.parametrize("extra", [[], ["--sample"], ["--beam", "2"]])
def test_batch_size_does_not_change_greedy_answers(
    flags: list[str], tmp_path: Path, extra: list[str]
) -> None:
    answers = []
    for size in ("1", "7"):
        output = tmp_path / f"runs{size}"
        arguments = [*flags, *extra, "--batch-size", size, "--output-dir", str(output)]
        assert main([*arguments, "--limit", "12"]) == 0
        (folder,) = (output / "pope/tiny-llava").iterdir()
        arms = read_run(folder).arms
        answers.append({name: texts_of(arm.answers) for name, arm in arms.items()})

    assert [of.keys() for of in answers[0].values()] == [of.keys() for of in answers[1].values()]
    if "--sample" not in extra:
        assert answers[0] == answers[1]


@pytest.mark.parametrize("extra", [[], ["--sample"]])
def test_killed_and_started_again_gives_the_undisturbed_result(
    flags: list[str], tmp_path: Path, extra: list[str]
) -> None:
    arguments = [*flags, "--pope-type", "all", "--limit", "24", "--batch-size", "4", *extra]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_lines(process, tmp_path, 20)
        process.send_signal(signal.SIGKILL)
    folder = run_folder(tmp_path)
    killed_at = sum(len(arm.answers) for arm in run_of(tmp_path).arms.values())
    with (folder / "arms/baseline/answers.jsonl").open("a") as file:
        file.write('{"id": 3, "image": "CO')  # what a kill in mid-write leaves

    assert main(arguments) == 0

    undisturbed = [*arguments, "--output-dir", str(tmp_path / "undisturbed")]
    assert main(undisturbed) == 0
    (other,) = (tmp_path / "undisturbed/pope/tiny-llava").iterdir()
    assert 0 < killed_at < sum(len(arm.answers) for arm in read_run(other).arms.values())
    assert same_answers(folder, other, ["baseline", "eah"])
    mine, theirs = metrics_of(folder), metrics_of(other)
    for own in ("costs", "p_yes"):  # times, and digits that depend on the batch
        assert (own in mine, own in theirs) == (True, True)
        del mine[own], theirs[own]
    assert mine == theirs
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1


def wait_for_lines(process: subprocess.Popen[Any], tmp_path: Path, count: int) -> None:
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline and process.poll() is None:
        lines = 0
        for path in tmp_path.glob("runs/pope/tiny-llava/*/arms/*/answers.jsonl"):
            with suppress(FileNotFoundError):
                lines += path.read_bytes().count(b"\n")
        if lines >= count:
            return
        time.sleep(0.02)
    process.kill()
    raise TimeoutError(f"no {count} answers within an hour, or the command ended")


def test_ctrl_c_keeps_the_answers(flags: list[str], tmp_path: Path) -> None:
    arguments = [*flags, "--pope-type", "all", "--limit", "24", "--batch-size", "2"]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_lines(process, tmp_path, 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()

    assert process.returncode == 130
    assert "pope_eval: interrupted; recorded answers are kept; rerun the command" in errors
    assert "Traceback" not in errors
    assert sum(len(arm.answers) for arm in run_of(tmp_path).arms.values()) >= 10


def test_saved_answers_are_scored_without_a_model(
    finished: tuple[Path, list[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _, printed = finished
    monkeypatch.setattr(models, "load", None)
    both = tmp_path / "both.jsonl"
    both.write_text(
        "".join(
            json.dumps({"method": name, "pope_type": answer.item.part,
                        "question_id": answer.item.id, "answer": answer.text}) + "\n"
            for name, arm in run_of(folder).arms.items()
            for answer in arm.answers
        )
    )  # fmt: skip
    of_arm = run_folder(folder) / "arms/eah/answers.jsonl"
    scored = []
    for saved in (both, of_arm):
        given = ["--answers", str(saved), "--pope-type", "all", "--pope-path", str(folder / "pope")]
        assert main([*given, "--json", str(tmp_path / "all.json")]) == 0
        scored.append((capsys.readouterr().out, json.loads((tmp_path / "all.json").read_text())))

    metrics = metrics_of(run_folder(folder))
    (text, found), (_, alone) = scored
    tables = printed.split("\n\n")
    assert len(tables[1].splitlines()) == 2 + 1
    assert len(tables[2].splitlines()) == 2 + 8
    assert tables[1] in text
    assert tables[2] in text
    assert "passes per token" not in text  # costs are the run's alone
    for name in ("results", "differences", "parsers"):
        assert found[name] == metrics[name]
    assert found["costs"] == {}
    assert [one["numbers"] for one in alone["results"]] == [
        one["numbers"] for one in metrics["results"] if one["arm"] == "eah"
    ]
    assert alone["differences"] == []


def test_one_picture_is_reported_without_an_interval(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--limit", "2"]) == 0

    printed = capsys.readouterr().out
    text = (run_folder(tmp_path) / "report/metrics.json").read_text()
    metrics = json.loads(text)
    assert metrics["bootstrap"]["pictures"] == 1
    assert metrics["costs"]["baseline"]["reused"] == 1  # two questions share the picture's prefix
    assert metrics["results"][0]["numbers"]["accuracy"]["low"] is None
    assert "NaN" not in text
    assert "nan" not in printed
    assert {result["part"] for result in metrics["results"]} == {"random"}  # and no mean of one


def test_saturated_prompts_are_warned_about_once_and_recorded(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--THRES", "1e-12", "--method", "eah", "--limit", "24"]) == 0

    errors = capsys.readouterr().err
    ((layer,),) = metrics_of(run_folder(tmp_path))["eah"].values()
    assert errors.count("every image token passes the threshold") == 1
    assert "this run has no baseline arm" in errors
    assert layer["saturated"] == layer["prompts"] == 24


def test_the_model_is_accurate_on_scenes_it_never_saw(tmp_path: Path) -> None:
    """Held out: training used seed 1. Greedy baseline, POPE random, 200 scenes."""
    write_scenes(tmp_path, count=200, seed=2014)
    arguments = [
        "--model", "tiny-llava", "--device", "cpu", "--method", "baseline", "--batch-size", "64",
        "--data-path", str(tmp_path / "val2014"), "--output-dir", str(tmp_path / "runs"),
        "--build-from", str(tmp_path / "annotations/instances_val2014.json"),
    ]  # fmt: skip

    assert main(arguments) == 0

    (result,) = metrics_of(run_folder(tmp_path))["results"]
    assert result["n"] >= 1000
    assert result["numbers"]["accuracy"]["value"] >= 0.90


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
        (["--THRES", "1.5"], r"threshold=1.5, but a mean attention weight is in (0, 1)"),
        (
            ["--LAYER_NUM", "9"],
            "layers=(9,) but LlavaForConditionalGeneration has no layer 9 with softmax",
        ),
        (["--HEAD_NUM", "8"], "head=8 but layer 1 has 8 heads (0..7)"),
        (["--preset", "papr"], "preset 'papr' is unknown: did you mean 'paper'"),
        (["--protocol", "oprea"], "did you mean 'opera'"),
        (
            ["--scale_factor", "50"],
            "method opera: OPERA is a beam search, but one beam was requested",
        ),
        (
            ["--scale_factor", "50", "--method", "eah"],
            "--scale_factor is a setting of opera, which no arm of this run has (eah)",
        ),
        (["--method", "vcd", "--beam", "5"], "method vcd: VCD chooses one token after another"),
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
    monkeypatch.setattr(Pope, "folders", (tmp_path / "absent",))
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
    assert main(flags) == 0
    (last,) = {list(arm.answers)[-1].item.image for arm in run_of(tmp_path).arms.values()}
    size = (pictures / last).stat().st_size
    (pictures / last).write_bytes(b"no picture".ljust(size))
    flags = [*flags, "--output-dir", str(tmp_path / "damaged")]

    assert main(flags) == 2

    assert f"{last} can't be read" in capsys.readouterr().err
    (folder,) = (tmp_path / "damaged/pope/tiny-llava").iterdir()
    assert len(read_run(folder).arms["baseline"].answers) > 0


def test_other_question_files_are_not_overwritten(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pope/coco_pope_popular.json"
    path.parent.mkdir()
    path.write_text("mine")

    assert main(flags) == 2

    assert "exists and has other questions" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_nothing_of_the_environment_leaks_into_a_run(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--limit", "6"]) == 0
    text = (run_folder(tmp_path) / "run.json").read_text()

    assert os.environ.get("HOME", "/nonexistent") + "/." not in text


def test_a_question_that_no_tokenizer_takes_is_named_before_a_model_is_loaded(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = sorted((scenes / "val2014").iterdir())[0].name
    (tmp_path / "pope").mkdir()
    for kind in TYPES:
        row = {"question_id": 7, "image": name, "text": "Is there a \ud800?", "label": "no"}
        (tmp_path / f"pope/coco_pope_{kind}.json").write_text(json.dumps(row) + "\n")
    flags = flags_for(scenes, tmp_path)
    at = flags.index("--build-from")
    monkeypatch.setattr("models.loading.load", lambda *_, **__: pytest.fail("it was loaded"))

    assert main(flags[:at] + flags[at + 2 :]) == 2

    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"question 7 of random about {name}: the prompt contains half of a surrogate pair" in said
    )
    assert "('\\ud800')" in said
