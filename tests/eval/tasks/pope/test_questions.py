"""Question files: the published ones as they are, and damaged ones with a sentence each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.tasks.pope.questions import questions_hash, read_questions

GOOD = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}


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
    questions = read_questions(shared / f"pope/coco_pope_{name}.json")

    assert len(questions) == count
    assert sum(question.label == "yes" for question in questions) == yes
    assert questions[0].text == "Is there a snowboard in the image?"


def test_hash_ignores_line_ends_but_not_content(tmp_path: Path) -> None:
    other = {**GOOD, "question_id": 2}
    unix = file_with(tmp_path / "unix", GOOD, other)
    windows = tmp_path / "windows"
    windows.write_bytes(unix.read_bytes().replace(b"\n", b"\r\n"))
    changed = file_with(tmp_path / "changed", GOOD, {**other, "label": "no"})

    assert questions_hash(read_questions(unix)) == questions_hash(read_questions(windows))
    assert questions_hash(read_questions(unix)) != questions_hash(read_questions(changed))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no questions"),
        ([GOOD, GOOD], "line 2: question_id 1 stands in line 1 already"),
        ([{**GOOD, "label": "maybe"}], "label 'maybe' is neither 'yes' nor 'no'"),
        ([{**GOOD, "label": 1}], "'label' is 1"),
        ([{"question_id": 1}], "'image' is None"),
        (['{"question_id": 1,'], "line 1 is not JSON"),
        (["[1, 2]"], "is not a JSON object"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[object], message: str) -> None:
    path = file_with(tmp_path / "questions.json", *lines)

    with pytest.raises(EvaluationError, match=message):
        read_questions(path)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00picture")

    with pytest.raises(EvaluationError, match="No such file"):
        read_questions(tmp_path / "absent.json")
    with pytest.raises(EvaluationError, match="not UTF-8"):
        read_questions(binary)
