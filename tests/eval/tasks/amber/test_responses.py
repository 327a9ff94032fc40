"""Saved captions: any order, parts of them, both halves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.amber.generative import AmberGenerative
from eval.tasks.amber.settings import GenerativeSettings
from tests.eval.tasks.amber.invented import write_amber

ROWS = [{"id": at, "response": f"caption {at}"} for at in (3, 1, 2)]


def read(folder: Path, rows: Any, **options: Any) -> dict[str, Any]:
    path = folder / "answers.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    settings = GenerativeSettings(questions=write_amber(folder / "data"), answers=path, **options)
    task = AmberGenerative(settings)
    saved = task.read_saved(path, task.amber.items[: settings.limit])
    return {arm: {a.item.id: a.text for a in of} for arm, of in saved.arms.items()}


def test_rows_in_any_order_and_layout(tmp_path: Path) -> None:
    expected = {1: "caption 1", 2: "caption 2", 3: "caption 3"}
    lines = "\n".join(map(json.dumps, ROWS))

    assert read(tmp_path, ROWS) == {"answers": expected}
    assert read(tmp_path, lines) == {"answers": expected}
    assert read(tmp_path, [{**row, "method": "eah"} for row in ROWS]) == {"eah": expected}
    named = [{"no": row["id"], "said": row["response"]} for row in ROWS]
    assert read(tmp_path, named, answer_key="said", id_key="no") == {"answers": expected}


def test_the_other_half_is_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read(tmp_path, [{"id": 4, "response": "No"}, *ROWS])

    assert found["answers"].keys() == {1, 2, 3}
    assert capsys.readouterr().err == (
        "note: 1 row(s) of answers.json answer other questions and are not scored\n"
    )
    assert read(tmp_path, ROWS, limit=2)["answers"].keys() == {1, 2}


def test_some_are_enough_if_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no answer to question_id 2 .* or --partial"):
        read(tmp_path, ROWS[:2])
    assert read(tmp_path, ROWS[:2], partial=True)["answers"].keys() == {1, 3}
    methods = [{**row, "method": "a"} for row in ROWS] + [{**ROWS[0], "method": "b"}]
    with pytest.raises(EvaluationError, match="2 questions are answered by only one of a and b"):
        read(tmp_path, methods, partial=True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no answers"),
        ([*ROWS, ROWS[0]], "answers question_id 3 more than once"),
        ([*ROWS, {"id": 99, "response": ""}], "answers question_id 99, which"),
        ([{"id": 99, "response": ""}], "answers question_id 99, which"),
        ([{"id": 4, "response": "No"}], "has no answer to any of the 3 questions"),
        ([{"id": 1, "response": None}], "'response' is None, not text"),
        ([{"id": 1, "caption": "a", "answer": "b"}], "could each be the model's answer"),
        ([{"id": 1, "text": "a", "query": "Is it?"}], "answers 'Is it?', but question 1 is"),
        ([{"id": 1, "response": "a", "image": "AMBER_2.jpg"}], "is about picture 'AMBER_2.jpg'"),
        ('{"1": "a dog"}', "no key looks like the model's answer"),
        ("a dog", "is not JSON"),
        ("[1]", "entry 1 is not a JSON object"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, rows: Any, said: str) -> None:
    with pytest.raises(EvaluationError) as error:
        read(tmp_path, rows, partial=True)

    assert said in str(error.value)
