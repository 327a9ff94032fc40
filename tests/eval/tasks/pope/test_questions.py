"""Question files: the published ones as they are, and damaged ones with a sentence each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.tasks.pope.questions import dump_questions, read_questions

TEXT = "Is there a dog in the image?"
GOOD = {"question_id": 1, "image": "a.jpg", "text": TEXT, "label": "yes"}


def file_with(path: Path, *lines: object) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text))
    return path


@pytest.mark.parametrize(
    ("name", "count", "yes"),
    [("random", 2910, 1500), ("popular", 3000, 1500), ("adversarial", 3000, 1500)],
)
def test_published_files_are_read_as_they_are(
    shared: Path, name: str, count: int, yes: int
) -> None:
    questions = read_questions(shared / f"pope/coco_pope_{name}.json", name)

    assert len(questions) == count
    assert {question.part for question in questions} == {name}
    assert sum(question.label == "yes" for question in questions) == yes
    assert questions[0].question == "Is there a snowboard in the image?"


def test_a_line_is_a_question_whatever_its_line_end(tmp_path: Path) -> None:
    unix = file_with(tmp_path / "unix", GOOD, {**GOOD, "question_id": 2})
    windows = tmp_path / "windows"
    windows.write_bytes(unix.read_bytes().replace(b"\n", b"\r\n"))
    expected = [Item(i, "a.jpg", TEXT, "yes", "popular") for i in (1, 2)]

    assert read_questions(unix, "popular") == expected
    assert read_questions(windows, "popular") == expected


def test_written_questions_are_read_back(tmp_path: Path) -> None:
    items = [
        Item(1, "a.jpg", "Is there a dog in the image?", "yes", "random"),
        Item(7, "b é.jpg", 'Is there a "cat" in the image?', "no", "random"),
    ]
    (tmp_path / "written").write_text(dump_questions(items))

    assert read_questions(tmp_path / "written", "random") == items
    first = json.loads((tmp_path / "written").read_text().splitlines()[0])
    assert first == GOOD  # the published keys, nothing else


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no questions"),
        ([GOOD, GOOD], "line 2: question_id 1 stands in line 1 already"),
        ([{**GOOD, "label": "maybe"}], "label 'maybe' is neither 'yes' nor 'no'"),
        ([{**GOOD, "label": 1}], "'label' is 1"),
        ([{**GOOD, "question_id": "1"}], "'question_id' is '1'"),
        ([{"question_id": 1}], "'image' is None"),
        (['{"question_id": 1,'], "line 1 is not JSON"),
        (["[1, 2]"], "is not a JSON object"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[object], message: str) -> None:
    path = file_with(tmp_path / "questions.json", *lines)

    with pytest.raises(EvaluationError, match=message):
        read_questions(path, "random")


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x89PNG\xff")

    with pytest.raises(EvaluationError, match="No such file"):
        read_questions(tmp_path / "absent.json", "random")
    with pytest.raises(EvaluationError, match="not UTF-8"):
        read_questions(binary, "random")
