"""Any benchmark by its name: the same as its own command, and what is wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import models
from eval import chair_eval, evaluate, pope_eval
from eval.errors import EvaluationError
from eval.evaluate import task_class
from eval.tasks.base import TASKS, Task
from scripts.scenes.make import write_scenes
from tests.eval.results import result_in
from tests.eval.tables import table_rows, widest_table_line


@pytest.fixture(scope="module")
def pope(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Return flags of a small run of POPE, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("pope")
    write_scenes(folder, count=6, seed=2014)
    return [
        "--model", "tiny-llava", "--device", "cpu", "--data-path", str(folder / "val2014"),
        "--build-from", str(folder / "annotations/instances_val2014.json"),
        "--output-dir", str(folder / "runs"), "--limit", "12",
    ], folder / "runs"  # fmt: skip


@pytest.mark.parametrize("spelling", [["--task", "pope"], ["--task=pope"]])
def test_a_task_by_name_is_the_same_run_as_its_own_command(
    pope: tuple[list[str], Path],
    spelling: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags, runs = pope
    assert pope_eval.main(flags) == 0
    own = capsys.readouterr().out
    folders = list(runs.glob("pope/tiny-llava/*"))
    monkeypatch.setattr(models, "load", None)

    assert evaluate.main([*flags[:2], *spelling, *flags[2:]]) == 0

    assert capsys.readouterr().out == own
    assert list(runs.glob("pope/tiny-llava/*")) == folders
    assert len(folders) == 1


def test_a_dry_run_says_what_would_be_asked_and_asks_nothing(
    pope: tuple[list[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags, runs = pope
    assert pope_eval.main(flags) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    monkeypatch.setattr(models, "load", None)

    arms = ["--method", "baseline", "vcd", "eah"]
    assert evaluate.main(["--task", "pope", *flags, *arms, "--dry-run"]) == 0

    printed = capsys.readouterr().out
    (folder,) = runs.glob("pope/tiny-llava/*")
    assert printed.splitlines()[:2] == [f"run folder: {folder}", "questions: 12"]
    assert table_rows(printed) == [
        ["arm", "answered", "to ask"],
        ["baseline", "12", "0"],
        ["vcd", "0", "12"],
        ["eah", "12", "0"],
    ]
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_the_report_is_printed_and_in_files(
    pope: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, runs = pope
    file = tmp_path / "new/numbers.json"

    assert pope_eval.main([*flags, "--json", str(file), "--reference", "eah"]) == 0

    printed = capsys.readouterr().out
    (folder,) = runs.glob("pope/tiny-llava/*")
    content = result_in(file)
    assert content == json.loads((folder / "report/metrics.json").read_text())
    assert content["run"] == folder.name
    assert content["questions"]["random"]["count"] == 12
    assert [(d["arm"], d["reference"]) for d in content["differences"]] == [("baseline", "eah")]
    table = (folder / "report/table.md").read_text()
    assert printed == f"{table}run folder: {folder}\n"
    assert table.startswith("POPE, tiny-llava (float32, cpu), protocol opera,\nparser opera, ")
    assert (folder / "report/table.csv").read_text().startswith("arm,part,n,accuracy,accuracy_low")


def test_wide_prints_all_metrics(
    pope: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], wide_tables: None
) -> None:
    assert pope_eval.main([*pope[0], "--wide"]) == 0

    printed = capsys.readouterr().out
    assert widest_table_line(printed) > 100
    assert {"n", "precision (95 %)", "unknown % (95 %)"} <= set(table_rows(printed)[2])


@pytest.mark.parametrize("flag", ["--answers", "--build-from", "--data-path"])
def test_an_input_is_not_overwritten(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text("mine")
    other = tmp_path / "folder/../mine.json"
    (tmp_path / "folder").mkdir()

    assert pope_eval.main([flag, str(path), "--json", str(other)]) == 2

    error = capsys.readouterr().err
    assert f"--json {other} is an input or a record of a run ({path}) and would be" in error
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "nearest"), [("pop", "pope"), ("mne", "mme"), ("chairs", "chair")]
)
def test_an_unknown_task_is_refused_with_the_nearest(
    name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        EvaluationError, match=f"task '{name}' is unknown: did you mean '{nearest}'"
    ):
        task_class(name)
    assert evaluate.main(["--task", name]) == 2
    assert capsys.readouterr().err.count("evaluate: error: task") == 1


def test_a_wrong_setting_names_the_command_that_was_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate.main(["--task", "pope", "--limit", "0"]) == 2
    assert pope_eval.main(["--limit", "0"]) == 2

    first, second = capsys.readouterr().err.splitlines()
    assert first == "evaluate: error: limit=0, but at least 1 is needed"
    assert second == "pope_eval: error: limit=0, but at least 1 is needed"


def test_help_lists_the_tasks_and_a_tasks_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        evaluate.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"the benchmark: {', '.join(TASKS)}" in shown.replace("- ", "-")
    with pytest.raises(SystemExit, match="0"):
        evaluate.main(["--task", "pope", "--help"])
    assert "--pope-type" in capsys.readouterr().out


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_what_its_line_says(name: str) -> None:
    task = task_class(name)

    assert issubclass(task, Task)
    assert task.name == name
    assert task.title
    known = {protocol for _, protocol in task.protocols}
    assert {"opera", "official", "chat"} <= known <= {"opera", "official", "chat", "chat-short"}
    for protocol in known:
        for family in ("llava-1.5", "instructblip", "minigpt4", "shikra", "hf"):
            assert task.protocol_of(protocol, family).max_new_tokens > 0
    with pytest.raises(EvaluationError, match="protocol 'oprea' is unknown: did you mean 'opera'"):
        task.protocol_of("oprea", "llava-1.5")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fresh", "--accept-old"], "--fresh sets recorded answers aside and --accept-old keeps"),
        (["--answers", "SAVED", "--dry-run"], "--dry-run affects how a model is asked"),
        (["--answers", "SAVED", "--method", "vcd"], "--method affects how a model is asked"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, saved = tmp_path / "coco_pope_random.json", tmp_path / "saved.jsonl"
    question = {"question_id": 1, "image": "1.jpg", "text": "Is there a cat?", "label": "yes"}
    questions.write_text(json.dumps(question) + "\n")
    saved.write_text('{"question_id": 1, "answer": "Yes."}\n')
    swapped = [str(saved) if flag == "SAVED" else flag for flag in flags]

    assert pope_eval.main([*swapped, "--pope-path", str(questions)]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--analyzer", "lexicon"], ["--ground-truth", "x.json"]])
def test_flags_of_scoring_need_score(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chair_eval.main([*flags, "--data-path", str(tmp_path)]) == 2
    assert "are only used with --score; add it, or leave them out" in capsys.readouterr().err
