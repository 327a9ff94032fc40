"""Question files: the published ones as they are, and damaged ones with a sentence each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

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
    "changes",
    [
        {"question_id": "1"},
        {"question_id": 1.0},
        {"category": " Random"},
        {"label": " Yes"},
        {"label": "YES"},
        {"image": "val\\a.jpg"},
        {"category": ["other", "tool's"]},
    ],
)
def test_other_spellings_mean_the_same_question(tmp_path: Path, changes: dict[str, Any]) -> None:
    (question,) = read_questions(file_with(tmp_path / "q", {**GOOD, **changes}), "random")

    image = changes.get("image", "a.jpg").replace("\\", "/")
    assert question == Item(1, image, TEXT, "yes", "random")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["q.json", "q.csv", "q.json.gz", "list.json"])
def test_questions_are_read_from_any_table_and_encoding(
    tmp_path: Path, name: str, encoding: str
) -> None:
    rows = [{**GOOD, "question_id": i} for i in (1, 2)]
    text = {
        "q.csv": "question_id,image,text,label\n"
        + "".join(f"{i},a.jpg,{TEXT},yes\n" for i in "12"),
        "list.json": json.dumps(rows),
    }.get(name, "".join(json.dumps(row) + "\n" for row in rows))
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    expected = [Item(i, "a.jpg", TEXT, "yes", "random") for i in (1, 2)]
    assert read_questions(tmp_path / name, "random") == expected


@pytest.mark.parametrize("name", ["q_capital.json", "q_list.json", "q_lmms.jsonl", "q_strid.json"])
def test_questions_of_other_tools_are_those_of_pope(shared: Path, name: str) -> None:
    folder = shared / "cases/answers-other-tools"

    assert read_questions(folder / name, "random") == read_questions(folder / "q_ok.json", "random")


@pytest.mark.parametrize(
    ("key", "other"), [("text", "question"), ("label", "answer"), ("image", "image_source")]
)
def test_each_key_may_be_that_of_lmms_eval(tmp_path: Path, key: str, other: str) -> None:
    row = {other if name == key else name: value for name, value in GOOD.items()}

    (question,) = read_questions(file_with(tmp_path / "q", row), "random")
    assert question == Item(1, "a.jpg", TEXT, "yes", "random")


def test_a_file_that_is_named_after_another_type_is_refused(tmp_path: Path) -> None:
    path = file_with(tmp_path / "coco_pope_popular.json", GOOD)

    assert len(read_questions(path, "popular")) == 1
    with pytest.raises(
        EvaluationError, match=r"has the type popular in its name, .*pass --pope-type popular"
    ):
        read_questions(path, "random")


def test_only_the_questions_of_the_type_are_taken(tmp_path: Path) -> None:
    rows = [{**GOOD, "category": part} for part in ("adversarial", "random", "popular")]

    found = read_questions(file_with(tmp_path / "q", *rows), "popular")

    assert found == [Item(1, "a.jpg", TEXT, "yes", "popular")]


@pytest.mark.parametrize("name", ["aokvqa_pope_seem", "gqa_pope_seem"])
def test_popes_other_sets_are_read(shared: Path, name: str) -> None:
    for kind in ("random", "popular", "adversarial"):
        found = read_questions(shared / f"benchmarks/pope-aokvqa-gqa/{name}_{kind}.json", kind)

        assert [item.id for item in found] == list(range(1, 3001))
        assert sum(item.label == "yes" for item in found) == 1500


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no questions of type random"),
        ([GOOD, GOOD], "line 2: question_id 1 is already in line 1"),
        ([{**GOOD, "label": "maybe"}], "label 'maybe' is neither 'yes' nor 'no'"),
        ([{**GOOD, "label": 1}], "'label' is 1"),
        ([{**GOOD, "question_id": 1.5}], "'question_id' is 1.5"),
        ([{**GOOD, "question_id": [1]}], r"'question_id' is \[1\]"),
        ([{**GOOD, "question_id": None}], "'question_id' is None"),
        ([{**GOOD, "question_id": True}], "'question_id' is True"),
        ([GOOD, {**GOOD, "question_id": "1"}], "line 2: question_id 1 is already in line 1"),
        ([{**GOOD, "category": "popular"}], "has no questions of type random"),
        ([{**GOOD, "category": "Popular"}], "has no questions of type random"),
        ([{**GOOD, "text": ""}], "'text' is ''"),
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
