"""Another yes/no benchmark takes one short file and one line: asked, resumed, scored, exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import evaluate, runs
from eval.tasks.base import TASKS
from scripts.scenes.make import write_scenes
from tests.eval.tasks.vsr import Vsr

ROWS = [("1", "left of", 1), ("1", "right of", 0), ("2", "left of", 0), ("2", "right of", 1)]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "vsr", f"{Vsr.__module__}.Vsr")  # type: ignore[misc]


def test_it_is_short_and_runs_as_every_other(
    known: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path, count=2, seed=3)
    lines = [
        {"image": f"COCO_val2014_{int(at):012d}.jpg", "caption": f"The cup is {what} the dog.",
         "relation": what, "label": label}
        for at, what, label in ROWS
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "val2014/vsr.jsonl").write_text(text)
    command = ["--task", "vsr", "--model", "tiny-llava", "--device", "cpu", "--output-dir",
               str(tmp_path / "runs"), "--data-path", str(tmp_path / "val2014")]  # fmt: skip

    assert evaluate.main(command) == 0

    first = capsys.readouterr()
    assert "2 of 2 parts" not in first.out  # all are there
    assert "scored with the formulas of VSR's paper; positive class: yes" in first.out
    (folder,) = (tmp_path / "runs/vsr/tiny-llava").iterdir()
    recorded = (folder / "arms/eah/answers.jsonl").read_text().splitlines()
    assert json.loads(recorded[0])["groups"] == {"relation": "left of"}
    metrics = json.loads((folder / "report/metrics.json").read_text())
    assert [(r["arm"], r["part"], r["n"]) for r in metrics["results"]] == [
        (arm, part, n) for arm in ("baseline", "eah")
        for part, n in (("left of", 2), ("right of", 2), ("all", 4))
    ]  # fmt: skip
    assert evaluate.main(command) == 0
    assert "[8/8" not in capsys.readouterr().err  # nothing is asked again
    assert runs.main(["show", str(folder)]) == 0
    assert "VSR" in capsys.readouterr().out
    # Groups are of the question: one that was changed is noticed.
    path = folder / "arms/baseline/answers.jsonl"
    path.write_text(path.read_text().replace('"groups": {"relation": "left of"}', '"groups": {}'))
    assert runs.main(["show", str(folder)]) == 2
    assert "one of the files was changed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tests/eval/tasks/vsr.py"])
def test_its_file_is_short(name: str, count: Callable[[str], int]) -> None:
    assert count(name) < 60


@pytest.mark.parametrize("name", [
    "mme", "dash_b", "hallusionbench/task", "amber/discriminative", "pope/others", "pope/task",
])  # fmt: skip
def test_each_yes_no_benchmark_is_short(name: str, count: Callable[[str], int]) -> None:
    assert count(f"eval/tasks/{name}.py") <= 150


@pytest.fixture
def count() -> Callable[[str], int]:
    root = Path(__file__).resolve().parents[3]
    return lambda name: len((root / name).read_text(encoding="utf-8").splitlines())
