"""The captioning command as a user runs it, on the embedded model: captions, resume, bad input."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import models
from eval import chair
from eval.chair_eval import main
from eval.tasks.chair.task import ChairCaptions, ChairSettings, next_command
from eval.tasks.pope.task import Pope
from models.prompts import TEMPLATES
from scripts.scenes.make import write_scenes
from tests.eval.results import result_in

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "eval/chair_eval.py"]
COUNT = 5
QUESTION = "Please describe this image in detail."


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=COUNT, seed=2014)
    return folder


@pytest.fixture
def flags(scenes: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--max-new-tokens", "24", "--batch-size", "2", "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def run_folder(runs: Path) -> Path:
    (folder,) = (runs / "chair/tiny-llava").iterdir()
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def answers(folder: Path, arm: str) -> list[dict[str, Any]]:
    return rows_of(folder / "arms" / arm / "answers.jsonl")


def image_ids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "report/image_ids.txt").read_text().splitlines()]


def settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())["settings"]
    return found


@pytest.mark.parametrize("extra", [[], ["--beam", "2"], ["--sample"]])
def test_a_run_writes_its_folder_and_says_what_is_next(
    flags: list[str],
    extra: list[str],
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*flags, *extra]) == 0

    folder, printed = run_folder(tmp_path / "runs"), capsys.readouterr()
    ids = image_ids(folder)
    assert sorted(ids) == list(range(1, COUNT + 1))
    for arm in ("baseline", "eah"):
        rows = answers(folder, arm)
        assert [row["id"] for row in rows] == ids
        for row in rows:
            assert list(row)[:5] == ["id", "image", "question", "answer", "finished"]
            assert list(row)[5:] == (["eah"] if arm == "eah" else [])
            assert row["image"] == f"COCO_val2014_{row['id']:012d}.jpg"
            assert row["question"] == QUESTION
            assert row["answer"].startswith("The image features ")
        captions = rows_of(folder / f"report/captions_{arm}.jsonl")
        assert captions == [{"image_id": row["id"], "caption": row["answer"]} for row in rows]
    metrics = json.loads((folder / "report/metrics.json").read_text())
    assert [result["n"] for result in metrics["results"]] == [COUNT, COUNT]
    assert "chair" not in metrics
    assert "| eah | " in printed.out
    assert printed.out.splitlines()[-1] == f"run folder: {folder}"
    made = folder / "report"
    assert shlex.split(printed.out.splitlines()[-2]) == [
        "next:", "python", "eval/chair.py", "--cap_file", str(made / "captions_eah.jsonl"),
        "--baseline", str(made / "captions_baseline.jsonl"), "--image_id_key", "image_id",
        "--caption_key", "caption", "--coco_path", str(scenes / "annotations"),
        "--splits", "val2014",
    ]  # fmt: skip
    assert "has only 5 pictures, fewer than 500; all of them are used" in printed.err


def test_the_papers_command_runs_with_another_model_and_folder(
    scenes: Path, tmp_path: Path
) -> None:
    command = (
        "python eval/chair_eval.py --model llava-1.5 --data-path /data/COCO/val2014 "
        "--gpu-id 0 --beam 5"
    )
    swapped = {"llava-1.5": "tiny-llava", "/data/COCO/val2014": f"{scenes}/val2014/", "0": "-1"}
    arguments = [swapped.get(word, word) for word in shlex.split(command)[2:]]

    assert main([*arguments, "--limit", "1", "--output-dir", str(tmp_path)]) == 0

    found = settings(run_folder(tmp_path))
    assert found["decoding"]["num_beams"] == 5
    assert found["decoding"]["max_new_tokens"] == 512
    assert found["question"] == QUESTION
    assert found["protocol"] == "opera"
    assert all(row["finished"] for row in answers(run_folder(tmp_path), "eah"))


def test_captions_are_scored_in_one_go(
    flags: list[str], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--score", "--analyzer", "lexicon"]) == 0

    folder, printed = run_folder(tmp_path / "runs"), capsys.readouterr().out
    out = tmp_path / "out.json"
    arguments = ["--cap_file", str(folder), "--coco_path", str(scenes / "annotations"),
                 "--splits", "val2014", "--analyzer", "lexicon",
                 "--save_path", str(out)]  # fmt: skip
    assert chair.main(arguments) == 0
    assert json.loads((folder / "report/metrics.json").read_text())["chair"] == result_in(out)
    assert capsys.readouterr().out.strip() in printed
    assert "next: " not in printed


def test_scoring_without_annotations_is_refused_before_a_caption_is_asked(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()

    assert main([*flags, "--score", "--coco_path", str(tmp_path / "empty")]) == 2

    assert "has none of COCO's annotations" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_ground_truth_that_can_not_score_is_refused_before_a_caption_is_asked(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"999999": ["cup"]}')

    for path, message in (
        (tmp_path / "nowhere.json", "nowhere.json can't be read"),
        (other, "other.json lacks them"),
    ):
        assert main([*flags, "--score", "--ground-truth", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_same_command_again_asks_the_model_nothing(
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(flags) == 0
    first = capsys.readouterr().out
    captions = run_folder(tmp_path / "runs") / "report/captions_eah.jsonl"
    text = captions.read_text()
    captions.write_text("damaged")
    monkeypatch.setattr(models, "load", None)

    spelled = [f"--{f[2:].replace('-', '_')}" if f.startswith("--") else f for f in flags]
    assert main(spelled) == 0

    assert capsys.readouterr().out == first
    assert captions.read_text() == text  # the answers count, not what was made of them


def test_a_changed_setting_is_another_folder(flags: list[str], tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("3\n1\n")
    backwards = tmp_path / "backwards.txt"
    backwards.write_text("1\n3\n")
    small = [*flags, "--max-new-tokens", "2"]
    for extra in (
        ["--image-ids", str(ids)],
        ["--image-ids", str(backwards)],
        ["--image-ids", str(ids), "--question", "Describe this image."],
        ["--image-ids", str(ids), "--max-new-tokens", "3"],
        ["--image-ids", str(ids), "--protocol", "official"],
        ["--image-ids", str(ids), "--limit", "1"],
        ["--num-images", "2", "--seed", "1"],
    ):
        assert main([*small, *extra]) == 0

    folders = list((tmp_path / "runs/chair/tiny-llava").iterdir())
    assert len(folders) == 7
    questions = sorted(settings(folder)["question"] for folder in folders)
    assert questions == ["Describe this image.", *[QUESTION] * 6]


def test_batch_size_does_not_change_greedy_captions(flags: list[str], tmp_path: Path) -> None:
    captions = []
    for size in ("1", "3"):
        runs = tmp_path / f"runs{size}"
        assert main([*flags, "--batch-size", size, "--output-dir", str(runs)]) == 0
        captions.append(
            [
                (run_folder(runs) / f"report/captions_{m}.jsonl").read_text()
                for m in ("baseline", "eah")
            ]
        )

    assert captions[0] == captions[1]


@pytest.mark.parametrize("extra", [["--beam", "2"], ["--sample"]])
def test_a_run_goes_on_from_any_caption(flags: list[str], tmp_path: Path, extra: list[str]) -> None:
    assert main([*flags, *extra]) == 0
    folder = run_folder(tmp_path / "runs")
    path = folder / "arms/eah/answers.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    # Stopped in the middle of a batch, and in the middle of a line.
    path.write_text("".join(lines[:3]) + lines[3][:30])

    assert main([*flags, *extra]) == 0

    assert path.read_text() == whole


def test_killed_and_started_again_gives_the_undisturbed_result(
    flags: list[str], tmp_path: Path
) -> None:
    arguments = [*flags, "--sample", "--batch-size", "1"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_lines(process, tmp_path, 3)
        process.send_signal(signal.SIGKILL)
    folder = run_folder(tmp_path / "runs")
    killed_at = recorded(folder)
    assert not (folder / "report").exists()

    assert main(arguments) == 0

    assert main([*arguments, "--output-dir", str(tmp_path / "undisturbed")]) == 0
    other = run_folder(tmp_path / "undisturbed")
    assert 0 < killed_at < 2 * COUNT
    for arm in ("baseline", "eah"):
        for name in (f"arms/{arm}/answers.jsonl", f"report/captions_{arm}.jsonl"):
            assert (folder / name).read_text() == (other / name).read_text()
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1


def recorded(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("arms/*/answers.jsonl"))


def wait_for_lines(process: subprocess.Popen[Any], tmp_path: Path, count: int) -> None:
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline and process.poll() is None:
        if sum(map(recorded, tmp_path.glob("runs/chair/tiny-llava/*"))) >= count:
            return
        time.sleep(0.02)
    process.kill()
    raise TimeoutError(f"no {count} captions within an hour, or the command ended")


def test_the_ids_of_a_run_give_the_same_run(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*flags, "--num-images", "4", "--limit", "3"]) == 0
    folder = run_folder(tmp_path / "runs")
    monkeypatch.setattr(models, "load", None)

    for name in ("report/image_ids.txt", "report/captions_eah.jsonl", "arms/eah/answers.jsonl"):
        assert main([*flags, "--image-ids", str(folder / name)]) == 0

    assert run_folder(tmp_path / "runs") == folder
    assert len(image_ids(folder)) == 3


def test_a_captions_file_is_obeyed_in_its_order(flags: list[str], tmp_path: Path) -> None:
    listed = tmp_path / "captions.jsonl"
    ids = [4, "2", "COCO_val2014_000000000005.jpg", 4, 1]
    listed.write_text("".join(json.dumps({"image_id": i, "caption": "A cat."}) + "\n" for i in ids))
    arguments = [*flags, "--image-ids", str(listed), "--method", "eah", "--limit", "3"]

    assert main(arguments) == 0

    folder = run_folder(tmp_path / "runs")
    assert image_ids(folder) == [4, 2, 5]
    assert [row["image_id"] for row in rows_of(folder / "report/captions_eah.jsonl")] == [4, 2, 5]
    assert [row["id"] for row in answers(folder, "eah")] == [4, 2, 5]


@pytest.mark.parametrize("method", ["baseline", "eah"])
def test_one_arm_writes_one_file_and_is_scored_alone(
    flags: list[str], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--method", method, "--limit", "1"]) == 0

    printed = capsys.readouterr()
    folder = run_folder(tmp_path / "runs")
    assert [path.name for path in folder.glob("report/captions_*")] == [f"captions_{method}.jsonl"]
    assert f"--cap_file {folder}/report/captions_{method}.jsonl --image_id_key" in printed.out
    assert ("chosen heads" in printed.out) == (method == "eah")
    assert ("this run has no baseline arm" in printed.err) == (method == "eah")


def test_the_next_command_knows_annotations_that_lie_beside_the_pictures(tmp_path: Path) -> None:
    pictures, beside = tmp_path / "val2014", tmp_path / "annotations"
    pictures.mkdir()
    settings = ChairSettings(data_path=pictures)
    unknown = next_command(tmp_path, ["baseline"], settings)
    beside.mkdir()
    for split in ("train2014", "val2014"):
        (beside / f"instances_{split}.json").touch()

    assert unknown.endswith("--coco_path /path/to/annotations")
    assert next_command(tmp_path, ["baseline"], settings).endswith(f"--coco_path {beside}")


def test_empty_and_cut_captions_are_recorded_and_counted(
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = models.VLM._answer

    def sometimes_silent(self: models.VLM, ids: list[int]) -> Any:
        answer = decode(self, ids)
        return answer._replace(text="", finished=True) if len(answer.text) % 2 else answer

    monkeypatch.setattr(models.VLM, "_answer", sometimes_silent)
    assert main([*flags, "--method", "baseline"]) == 0

    rows = answers(run_folder(tmp_path / "runs"), "baseline")
    empty = sum(row["answer"] == "" for row in rows)
    cut = sum(not row["finished"] for row in rows)
    words = sum(len(row["answer"].split()) for row in rows) / COUNT
    characters = sum(len(row["answer"]) for row in rows) / COUNT
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| baseline"))
    assert 0 < empty < COUNT
    assert cut == COUNT - empty
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == "baseline"
    assert cells[1].startswith(f"{words:.1f} (")
    assert cells[2:5] == [f"{characters:.1f}", f"{20 * cut:.1f}", f"{20 * empty:.1f}"]


def test_every_protocol_of_a_prompt_has_a_way_to_caption() -> None:
    for family, protocol in TEMPLATES:
        assert ChairCaptions.protocol_of(protocol, family).max_new_tokens == 512
        assert Pope.protocol_of(protocol, family).parser in ("opera", "pope")
    assert Pope.protocol_of("official", "llava-1.5").suffix
    assert not Pope.protocol_of("official", "shikra").suffix


@pytest.mark.parametrize("start", [COMMAND, [sys.executable, "-m", "eval.chair_eval"]])
def test_both_ways_to_start_it_work(start: list[str]) -> None:
    done = subprocess.run([*start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "--image-ids" in done.stdout
    assert "--scale_factor" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-path", "nowhere"], "--data-path nowhere is not a folder"),
        (["--data-path", "eah"], "no pictures in eah"),
        (["--image-ids", "absent.txt"], "absent.txt can't be read"),
        (["--image-ids", "IDS"], "2 of 3 image ids of IDS have no picture in"),
        (
            ["--image-ids", "IDS", "--num-images", "3"],
            "num_images=3 select pictures, but only one is allowed",
        ),
        (["--num-images", "0"], "num_images=0, but at least 1 is needed"),
        (["--question", " "], "question=' ' is empty"),
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
        (["--num-attn-candidates", "0", "--beam", "5"], "opera: num_attn_candidates=0"),
        (["--options", "num_imgs=3"], "'num_imgs' is unknown: did you mean 'num_images'"),
    ],
)
def test_bad_input_is_one_sentence(
    flags: list[str],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n77\n78\n")
    swapped = [argument.replace("IDS", str(ids)) for argument in arguments]

    assert main([*flags, *swapped]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("chair_eval: error: ")
    assert message.replace("IDS", str(ids)) in errors[0]
    assert not (tmp_path / "runs").exists()


def test_no_pictures_say_what_to_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "tiny-llava"]) == 2
    assert "no pictures: pass --data-path, such as /data/COCO/val2014" in capsys.readouterr().err
