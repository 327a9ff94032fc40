"""What an output flag names: never an input, and never something that is changed into a file."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import chair, chair_eval, pope_eval, runs
from eval.files import writing
from scripts.scenes.make import write_scenes
from tests.eval.small_runs import always_yes, right, state_of, write_run

RUN = "runs/pope/tiny-llava/one-11111111"
CHAIR = ["--cap_file", "captions.jsonl", "--coco_path", "annotations", "--splits", "val2014",
         "--cache", "cache.json", "--num-workers", "1"]  # fmt: skip
MODEL = ["--model", "tiny-llava", "--gpu-id", "-1", "--data-path", "val2014", "--limit", "1",
         "--max-new-tokens", "2", "--method", "baseline", "--output-dir", "out",
         "--overwrite"]  # fmt: skip
BUILD = ["--build-from", "annotations/instances_val2014.json", "--pope-path", "built",
         "--build-images", "2"]  # fmt: skip
FLAGS: dict[str, Callable[[str], int]] = {
    "--save_path": lambda path: chair.main([*CHAIR, "--save_path", path]),
    "--report": lambda path: chair.main([*CHAIR, "--report", path]),
    "--json": lambda path: runs.main(["show", RUN, "--json", path]),
    "--output": lambda path: runs.main(["export", RUN, "--output", path]),
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="special files of Unix")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_scenes(folder, count=2, seed=2014)
    rows = [{"image_id": number, "caption": "A dog on a bench."} for number in (1, 2)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_run(folder / RUN, {"baseline": right, "eah": always_yes})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert chair.main(CHAIR) == 0  # the cache
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


def link(name: str, to: str) -> str:
    Path(name).symlink_to(to)
    return name


def hard_link(name: str, to: str) -> str:
    os.link(to, name)
    return name


def file(name: str, content: str = "", mode: int = 0o644) -> str:
    Path(name).write_text(content)
    Path(name).chmod(mode)
    return name


def bound_socket(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(name)
    return name


REFUSED: dict[str, Callable[[], str]] = {
    "a file of somebody": lambda: file("theirs.json", "mine\n"),
    "the run's settings": lambda: f"{RUN}/run.json",
    "a run's answers": lambda: f"{RUN}/arms/baseline/answers.jsonl",
    "answers by a link": lambda: link("linked", f"{RUN}/arms/eah/answers.jsonl"),
    "answers by a hard link": lambda: hard_link("hard", f"{RUN}/arms/eah/answers.jsonl"),
    "through a linked folder": lambda: link("to", RUN) + "/run.json",
    "captions": lambda: "captions.jsonl",
    "captions, otherwise": lambda: "./annotations/../captions.jsonl",
    "captions by a link": lambda: link("linked", "captions.jsonl"),
    "captions by a hard link": lambda: hard_link("hard", "captions.jsonl"),
    "annotations": lambda: "annotations/captions_val2014.json",
    "a full device": lambda: "/dev/full",
    "a folder": lambda: "annotations",
    "a socket": lambda: bound_socket("socket"),
    "a loop": lambda: link("loop", "loop"),
    "write-protected": lambda: file("kept.json", mode=0o444),
    "a long name": lambda: "a" * 251 + ".json",
    "a character of none": lambda: "a\0b",
    "below a file": lambda: "captions.jsonl/x",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_refused_in_one_sentence_and_nothing_is_changed(
    folder: Path, flag: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, make in REFUSED.items():
        path = make()
        before = state_of(folder)
        try:
            assert FLAGS[flag](path) == 2, name
            assert state_of(folder) == before, name
        finally:
            for left in ("linked", "hard", "to"):
                Path(left).unlink(missing_ok=True)
        *_, said = capfd.readouterr().err.splitlines()
        assert ": error: " in said, name
        assert "bug" not in said, name
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert Path("socket").is_socket()


@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_replaced_keeps_its_kind_and_mode(folder: Path, flag: str) -> None:
    link("linked.json", file("target.json", mode=0o600))
    link("dangling.json", "later.json")
    assert FLAGS[flag]("plain.json") == 0
    assert FLAGS[flag]("linked.json") == 0
    assert FLAGS[flag]("dangling.json") == 0
    assert FLAGS[flag]("/dev/null") == 0

    written = Path("plain.json").read_bytes()
    assert [Path(name).is_symlink() for name in ("linked.json", "dangling.json")] == [True, True]
    assert written == Path("target.json").read_bytes() == Path("later.json").read_bytes()
    assert stat.S_IMODE(Path("target.json").stat().st_mode) == 0o600
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert FLAGS[flag]("target.json") == 0, "the same command replaces its own file"
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_a_pipe_is_written_into(folder: Path) -> None:
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    assert FLAGS["--json"]("pipe") == 0
    reader.join(10)
    assert FLAGS["--json"]("file.json") == 0

    assert got == [Path("file.json").read_bytes()]
    assert Path("pipe").is_fifo()


def test_a_pipe_that_nobody_reads_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "READER_S", 0.05)
    os.mkfifo("pipe")

    assert FLAGS["--json"]("pipe") == 2
    assert "it is a pipe without a reader" in capsys.readouterr().err


def test_a_disk_that_fills_while_it_is_written_to_leaves_the_old_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FLAGS["--json"]("result.json") == 0
    before = state_of(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN, "Python gets an error instead"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        status = FLAGS["--json"]("result.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert status == 2
    assert "result.json can't be written: File too large" in capsys.readouterr().err
    assert state_of(folder) == before


def test_two_outputs_at_one_path_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link("other.json", "one.json")
    assert chair.main([*CHAIR, "--save_path", "one.json", "--report", "other.json"]) == 2

    assert "is the file of --save_path, too" in capsys.readouterr().err
    assert not Path("one.json").exists()


@pytest.mark.parametrize("name", [name for name in REFUSED if "captions" in name])
def test_an_input_is_not_overwritten_on_any_wish(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = REFUSED[name]()
    before = state_of(folder)
    assert chair.main([*CHAIR, "--save_path", path, "--overwrite"]) == 2

    assert "would be overwritten" in capsys.readouterr().err
    assert state_of(folder) == before


def test_a_file_of_somebody_else_is_replaced_on_wish(folder: Path) -> None:
    assert chair.main([*CHAIR, "--save_path", file("theirs.json", "mine\n"), "--overwrite"]) == 0
    assert chair.main([*CHAIR, "--save_path", "new.json"]) == 0

    assert Path("theirs.json").read_bytes() == Path("new.json").read_bytes()


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (
            lambda to: chair_eval.main([*MODEL, "--score", "--json", to]),
            "annotations/captions_val2014.json",
        ),
        (lambda to: pope_eval.main([*MODEL, "--json", to]), "pope_coco/coco_pope_random.json"),
        (lambda to: pope_eval.main([*MODEL, *BUILD, "--json", to]), "built/coco_pope_popular.json"),
        (lambda to: pope_eval.main([*MODEL, *BUILD, "--json", to]), BUILD[1]),
        (lambda to: pope_eval.main([*MODEL, "--config", "my.yaml", "--json", to]), "my.yaml"),
        (lambda to: chair.main([*CHAIR[:-4], "--cache", to]), "captions.jsonl"),
    ],
    ids=["annotations", "questions", "built questions", "instances", "config", "cache"],
)
def test_what_a_command_finds_by_itself_is_an_input(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[str], int],
    what: str,
) -> None:
    (folder / "pope_coco").mkdir()
    (folder / "pope_coco/coco_pope_random.json").write_text("{}")
    (folder / "my.yaml").write_text("overwrite: true\n")
    before = state_of(folder)

    assert command(what) == 2

    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "is an input or a record of a run" in sentence or "--cache" in sentence
    assert state_of(folder) == before


@pytest.mark.parametrize("format_", ["csv", "latex", "llava"])
def test_an_export_is_made_again_and_answers_for_other_tools_are_not_replaced(
    folder: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    export = ["export", RUN, "--format", format_, "--output", "out"]
    assert runs.main(export) == runs.main(export) == 0
    first = Path("out").read_text()
    shutil.rmtree(Path(RUN) / "arms/eah")

    status = runs.main(export)

    assert (status, Path("out").read_text() == first) == ((2, True) if format_ == "llava"
                                                          else (0, False))  # fmt: skip


def test_a_page_and_numbers_do_not_replace_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chair.main([*CHAIR, "--report", "out"]) == 0
    assert chair.main([*CHAIR, "--report", "out"]) == 0
    assert chair.main([*CHAIR, "--save_path", "out"]) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert Path("out").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_file_that_printed_output_goes_to_is_no_output(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stream: str,
) -> None:
    with Path("out").open("w") as redirected:
        monkeypatch.setattr(sys, stream, redirected)
        assert chair.main([*CHAIR, "--save_path", "./out"]) == 2

    said = Path("out").read_text() + capsys.readouterr().err
    assert "is the file that the command's printed output goes to; name another file" in said
