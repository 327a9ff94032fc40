"""Edited lines of a run: a label, picture or question that nobody asked is noticed and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval import pope_eval, runs
from eval.errors import EvaluationError
from eval.tasks.pope.questions import dump_questions, read_questions
from tests.eval.small_runs import always_yes, questions, right, write_run


def edit(run: Path, arm: str, line: int, **changes: Any) -> None:
    path = run / "arms" / arm / "answers.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[line - 1] |= changes
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "x-1", {"baseline": always_yes, "eah": right})


@pytest.mark.parametrize("changes", [{"label": "yes"}, {"image": "9.jpg"}, {"question": "No?"}])
@pytest.mark.parametrize("command", ["show", "rescore", "export", "compare", "scored"])
@pytest.mark.parametrize("arm", ["baseline", "eah"])
def test_an_edited_line_is_named(
    run: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    command: str,
    arm: str,
) -> None:
    edit(run, arm, 3, **changes)

    if command == "scored":
        status = pope_eval.main(["--answers", str(run)])
    else:
        status = runs.main([command, str(run), *([str(run)] if command == "compare" else [])])

    assert status == 2
    assert f"arms/{arm}/answers.jsonl, answer 3 is to " in capsys.readouterr().err


def test_a_label_that_is_edited_in_all_arms_is_noticed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arm in ("baseline", "eah"):
        edit(run, arm, 1, label="yes")

    assert runs.main(["rescore", str(run)]) == 2
    assert "do not match the hash in run.json" in capsys.readouterr().err


def test_answers_in_another_order_are_the_same(run: Path) -> None:
    path = run / "arms/eah/answers.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))

    assert runs.main(["rescore", str(run)]) == 0


def test_an_answer_that_was_added_is_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "arms/eah/answers.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text() + json.dumps(first | {"id": 99}) + "\n")

    assert runs.main(["rescore", str(run)]) == 2
    assert "has 7 answers, but the run asks 6 questions" in capsys.readouterr().err


def test_folders_of_no_arm_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = run / "arms/eah copy"
    copy.mkdir()
    for name in ("arm.json", "answers.jsonl"):
        (copy / name).write_bytes((run / "arms/eah" / name).read_bytes())
    assert runs.main(["rescore", str(run)]) == 2
    assert "is the file of arm 'eah', whose folder has another name" in capsys.readouterr().err

    (copy / "arm.json").unlink()
    assert runs.main(["rescore", str(run)]) == 2
    assert "has answers, but no arm.json" in capsys.readouterr().err


def test_rows_with_other_labels_are_counted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question_id": i.id, "answer": "Yes.", "label": "yes"} for i in questions()
    ]  # three of six labels are no
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.json").write_text(dump_questions(questions()))

    asked = ["--pope-path", str(tmp_path / "q.json"), "--output-dir", str(tmp_path / "runs")]
    assert pope_eval.main(["--answers", str(tmp_path / "a.jsonl"), *asked]) == 0
    assert "3 of 6 rows of a.jsonl have another label" in capsys.readouterr().err


def test_questions_of_other_types_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = dump_questions(questions()).splitlines()
    rows = [json.loads(line) | {"category": "random"} for line in lines]
    rows[0]["category"] = "popular"
    path = tmp_path / "q.json"
    path.write_text(json.dumps(rows))
    assert len(read_questions(path, "random")) == 5
    assert "popular (1 rows)" in capsys.readouterr().err

    rows[1]["category"] = "randm"
    path.write_text(json.dumps(rows))
    with pytest.raises(EvaluationError, match="category 'randm' is not one of"):
        read_questions(path, "random")
