"""Pictures that can't be read, through the commands: one sentence, or left out and said so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
from eval import chair, evaluate, pope_eval
from tests.eval.small_runs import lines_of, only_run, pope_flags

Capture = pytest.CaptureFixture[str]


def one_sentence(capsys: Capture) -> str:
    """Return what a command said last, after checking that it is one sentence."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    runs = ["--output-dir", str(tmp_path / "runs"), "--method", "baseline"]
    return [*pope_flags(tmp_path), *runs]


def spoil(tmp_path: Path, how: Callable[[Path], object]) -> str:
    """Replace one picture and return its name."""
    path = sorted((tmp_path / "val2014").iterdir())[1]
    path.unlink()
    how(path)
    return path.name


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_is_left_out_is_in_the_table_and_in_the_numbers(
    tmp_path: Path, flags: list[str], capsys: Capture, workers: str
) -> None:
    name = spoil(tmp_path, lambda path: path.write_bytes(b"GIF89a"))
    flags += ["--num-workers", workers]

    assert pope_eval.main(flags) == 2
    assert f"{name} can't be read (" in (said := one_sentence(capsys))
    assert "--skip-unreadable" in said
    assert pope_eval.main([*flags, "--skip-unreadable"]) == 0

    out = capsys.readouterr().out
    line = f"\nleft out: 1 picture(s) that can't be read, with their questions: {name}\n"
    report = max((tmp_path / "runs/pope/tiny-llava").glob("*/report"))
    assert line in out
    assert line in (report / "table.md").read_text()
    assert json.loads((report / "metrics.json").read_text())["left_out"] == [name]


def test_where_all_are_read_nothing_is_said_of_it(
    tmp_path: Path, flags: list[str], capsys: Capture
) -> None:
    assert pope_eval.main([*flags, "--skip-unreadable"]) == 0

    assert "that can't be read" not in capsys.readouterr().out
    content = json.loads((only_run(tmp_path / "runs") / "report/metrics.json").read_text())
    assert "left_out" not in content


@pytest.mark.parametrize("how", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_missing(
    tmp_path: Path, flags: list[str], capsys: Capture, how: Callable[[Path], object]
) -> None:
    name = spoil(tmp_path, how)

    assert pope_eval.main([*flags, "--skip-unreadable"]) == 2

    assert (
        f"1 of 4 pictures are not in {tmp_path / 'val2014'}, the first is {name}"
        in one_sentence(capsys)
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 300 + ".jpg", "are not in"),
        ("a\0b.jpg", r"the first is a\x00b.jpg"),
        ("\ud800.jpg", r"the first is \ud800.jpg"),
        ("a\nb.jpg", r"the first is a\nb.jpg"),
        ("/etc/hostname.jpg", "which is not in"),
        ("../secret.jpg", "../secret.jpg, which is not in"),
        ("a/../../secret.jpg", "which is not in"),
    ],
)
def test_odd_names_in_a_question_file_are_one_sentence(
    tmp_path: Path, flags: list[str], capsys: Capture, name: str, shown: str
) -> None:
    questions = tmp_path / "q.json"
    row = {"question_id": 1, "image": name, "text": "Is there a dog in the image?", "label": "no"}
    questions.write_text(json.dumps(row))
    at = flags.index("--build-from")
    flags[at : at + 4] = ["--pope-path", str(tmp_path / "pope")]
    (tmp_path / "pope").mkdir(exist_ok=True)
    for kind in ("random", "popular", "adversarial"):
        (tmp_path / f"pope/coco_pope_{kind}.json").write_text(json.dumps(row))
    (tmp_path / "secret.jpg").write_bytes(next((tmp_path / "val2014").iterdir()).read_bytes())

    assert pope_eval.main(flags) == 2

    assert shown in one_sentence(capsys)


def test_a_name_may_lead_through_folders_and_links_of_the_pictures(
    tmp_path: Path, flags: list[str]
) -> None:
    spoil(tmp_path, lambda path: path.symlink_to(tmp_path / "elsewhere.jpg"))
    pictures = tmp_path / "val2014"
    (tmp_path / "elsewhere.jpg").write_bytes(max(pictures.iterdir()).read_bytes())

    assert pope_eval.main(flags) == 0


@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.write_bytes(b"\x89PNG\r\n")])
def test_a_picture_that_goes_during_the_run_is_one_sentence_and_answers_stay(
    tmp_path: Path,
    flags: list[str],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[Path], object],
    inputs_change: None,
) -> None:
    last = max((tmp_path / "val2014").iterdir())
    answer_batch = models.VLM.answer_batch
    before = last.read_bytes()

    def answered(*asked: Any) -> Any:
        if last.exists():
            how(last)
        return answer_batch(*asked)

    monkeypatch.setattr(models.VLM, "answer_batch", answered)
    assert pope_eval.main([*flags, "--batch-size", "1"]) == 2

    assert f"{last.name} can't be read (" in one_sentence(capsys)
    run = only_run(tmp_path / "runs")
    kept = lines_of(run, "baseline")
    assert kept
    monkeypatch.undo()
    last.write_bytes(before)
    assert pope_eval.main([*flags, "--batch-size", "1"]) == 0
    assert lines_of(run, "baseline")[: len(kept)] == kept


def test_mme_names_its_unreadable_picture(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "mme/existence"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"")
    lines = [f"1.jpg\tIs there a dog? {n}\t{label}\n" for n, label in ((1, "Yes"), (2, "No"))]
    (tmp_path / "mme/existence.txt").write_text("".join(lines))
    flags = ["--task", "mme", "--model", "tiny-llava", "--device", "cpu", "--method", "baseline",
             "--data-path", str(tmp_path / "mme"),
             "--output-dir", str(tmp_path / "runs")]  # fmt: skip

    assert evaluate.main(flags) == 2
    assert "1.jpg can't be read (it is empty)" in one_sentence(capsys)
    (tmp_path / "mme/existence.txt").write_text("".join(lines).replace("1.jpg", "/etc/1.jpg"))
    (folder / "1.jpg").unlink()  # it would be one that no question is about
    assert evaluate.main(flags) == 2
    assert "1.jpg, which is not in" in one_sentence(capsys)


def test_a_page_shows_why_a_picture_is_not_shown(tmp_path: Path, capsys: Capture) -> None:
    pictures, page = tmp_path / "pictures", tmp_path / "page.html"
    pictures.mkdir()
    for number, content in enumerate((b"", b"\x89PNG\r\n", b"qoif" + bytes(20)), start=1):
        (pictures / f"{number}.png").write_bytes(content)
    truth, captions = tmp_path / "truth.json", tmp_path / "captions.jsonl"
    truth.write_text('{"1": ["dog"], "2": ["dog"], "3": ["dog"]}')
    rows = [json.dumps({"image_id": number, "caption": "a dog"}) for number in (1, 2, 3)]
    captions.write_text("\n".join(rows))

    assert chair.main(["--cap_file", str(captions), "--ground-truth", str(truth),
                       "--report", str(page), "--images", str(pictures)]) == 0  # fmt: skip

    assert "Traceback" not in capsys.readouterr().err
    assert page.read_text().count(".png ") >= 3
