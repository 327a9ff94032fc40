"""Damaged files of a run are one sentence each, whatever reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval import runs
from eval.errors import EvaluationError
from eval.files.answers import Item, answer_of
from eval.files.storage import read_json
from eval.run.folder import questions_record

OLD = Path(__file__).resolve().parents[1] / "data/runs-0.1/pope/tiny-llava"
ANSWER: dict[str, Any] = {"id": 1, "image": "1.jpg", "question": "Is there a cat?", "label": "yes",
                          "part": "random", "answer": "Yes.", "finished": True}  # fmt: skip
FINDING = {"layer": 1, "head": 3, "sinks": 4, "image_tokens": 64, "saturated": False}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (old,) = OLD.iterdir()
    item = Item(*(ANSWER[name] for name in ("id", "image", "question", "label", "part")))
    asked = questions_record([(item, item.question)])
    settings = read_json(old / "run.json")["settings"] | {"questions": asked}
    folder = tmp_path / "opera-random-0123abcd"
    arm = folder / "arms/baseline"
    arm.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    (arm / "arm.json").write_text(json.dumps({"name": "baseline", "started": "2026-11-27"}))
    (arm / "answers.jsonl").write_text(json.dumps(ANSWER) + "\n")
    (arm / "costs.jsonl").write_text(json.dumps({"batch": "random/1+1", "seconds": 1}) + "\n")
    return folder


def test_a_whole_run_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["rescore", str(run)]) == 0
    assert "100.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", ""),
        ("run.json", "[]"),
        ("run.json", '{"settings": 5}'),
        ("run.json", '{"settings": {"benchmark": 5}}'),
        ("run.json", '{"settings": {"benchmark": "pope"}}'),
        ("arms/baseline/arm.json", ""),
        ("arms/baseline/arm.json", "{}"),
        ("arms/baseline/arm.json", '{"name": 5, "started": "x"}'),
        ("arms/baseline/arm.json", '{"name": "baseline"}'),
        ("arms/baseline/answers.jsonl", "no JSON\n"),
        ("arms/baseline/answers.jsonl", "5\n"),
        ("arms/baseline/answers.jsonl", "{}\n"),
        ("arms/baseline/answers.jsonl", json.dumps(ANSWER | {"id": [1]}) + "\n"),
        ("arms/baseline/costs.jsonl", "{}\n"),
        ("arms/baseline/costs.jsonl", '{"batch": "x", "seconds": "long"}\n'),
    ],
)
def test_damage_is_one_sentence(
    run: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_text(content)

    assert runs.main(["rescore", str(run)]) == 2

    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert str(run / name) in errors[0]


@pytest.mark.parametrize(
    "change",
    [
        {"id": [1]}, {"id": 1.5}, {"image": None}, {"question": 5}, {"label": 1}, {"part": 2},
        {"answer": 5}, {"finished": "yes"}, {"eah": 5}, {"eah": [5]},
        {"eah": [FINDING | {"layer": "1"}]}, {"eah": [FINDING | {"head": "3"}]},
        {"eah": [FINDING | {"saturated": 1}]}, {"eah": [FINDING | {"new": 1}]},
    ],
    ids=str,
)  # fmt: skip
def test_answers_of_other_types_are_refused(change: dict[str, Any]) -> None:
    answer_of(ANSWER | {"eah": [FINDING]}, "here")

    with pytest.raises(EvaluationError, match="here is not a recorded answer"):
        answer_of(ANSWER | change, "here")


def test_a_damaged_run_is_named_beside_the_others(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "damaged").mkdir()
    (run.parent / "damaged/run.json").write_text("x")

    assert runs.main(["list", str(run.parent)]) == 0

    printed = capsys.readouterr()
    assert "1 of 1" in printed.out
    assert printed.err.startswith("note: ")
    assert str(run.parent / "damaged/run.json") in printed.err
