"""Files that answer some of the questions only: refused, or scored with what they lack said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.tasks.yes_no.answer_rows import Matching
from eval.tasks.yes_no.answers import read_answers

THINGS = ("cat", "dog", "cup")
ITEMS = [
    Item(f"{part}-{k}", f"{k}.jpg", f"Is there a {thing}?", "no", part)
    for part in ("a", "b")
    for k, thing in enumerate(THINGS)
]
PARTIAL = Matching(partial=True)


def read(folder: Path, rows: Any, rule: Matching, items: list[Item] = ITEMS) -> list[Any]:
    path = folder / "answers.json"
    path.write_text(json.dumps(rows))
    found = read_answers(path, items, rule=rule)
    return [(answer.item.id, answer.text) for answer in found.arms["answers"]]


def test_ids_alone_find_questions_of_several_parts(tmp_path: Path) -> None:
    rows = [{"id": item.id, "answer": f"no {item.id}"} for item in reversed(ITEMS)]

    assert read(tmp_path, rows, Matching()) == [(i.id, f"no {i.id}") for i in ITEMS]
    with pytest.raises(
        EvaluationError, match=r"no answer to question_id a-0 \(3 in total\).* --partial"
    ):
        read(tmp_path, rows[:-3], Matching())


@pytest.mark.parametrize("named", [False, True])
def test_some_answers_are_taken_by_id(tmp_path: Path, named: bool) -> None:
    rows = [
        {"id": at, "answer": "no", **({"part": at[0]} if named else {})} for at in ("b-1", "a-0")
    ]

    assert read(tmp_path, rows, PARTIAL) == [("a-0", "no"), ("b-1", "no")]
    assert read(tmp_path, rows[:1], PARTIAL) == [("b-1", "no")]
    for wrong, said in ((rows * 2, "more than once"), ([{"id": "c-0", "answer": "no"}], "c-0, which"
                        )):  # fmt: skip
        with pytest.raises(EvaluationError, match=said):
            read(tmp_path, wrong, PARTIAL)


def test_some_answers_are_taken_by_picture_and_text(tmp_path: Path) -> None:
    items = ITEMS[:3]
    rows = [{"image": f"x/{k}.jpg", "question": f"is there a {THINGS[k]}? ", "answer": str(k)}
            for k in (2, 0)]  # fmt: skip

    assert read(tmp_path, rows, PARTIAL, items) == [("a-0", "0"), ("a-2", "2")]
    with pytest.raises(EvaluationError, match="2 answers without question_id, but there are 3"):
        read(tmp_path, rows, Matching(), items)


def test_rows_that_say_nothing_of_their_question_have_to_be_all(tmp_path: Path) -> None:
    rows = [{"answer": str(k)} for k in range(2)]

    with pytest.raises(EvaluationError, match="2 answers without question_id, but there are 3"):
        read(tmp_path, rows, PARTIAL, ITEMS[:3])
    assert len(read(tmp_path, [*rows, {"answer": "2"}], PARTIAL, ITEMS[:3])) == 3


def test_ids_of_another_half_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = Matching(ignored=frozenset([7, 8]))
    rows = [{"id": at, "answer": "x"} for at in (7, "a-0", "a-1", "a-2", 8)]

    assert [at for at, _ in read(tmp_path, rows, rule, ITEMS[:3])] == ["a-0", "a-1", "a-2"]
    assert (
        "note: 2 row(s) of answers.json answer other questions and are not scored"
        in capsys.readouterr().err
    )
    with pytest.raises(EvaluationError, match="no answer to any of the 3 questions"):
        read(tmp_path, rows[:1], rule, ITEMS[:3])


def test_arms_that_answer_other_questions_are_refused(tmp_path: Path) -> None:
    rows = [{"id": "a-0", "answer": "x", "method": "one"},
            {"id": "a-1", "answer": "x", "method": "two"}]  # fmt: skip

    with pytest.raises(
        EvaluationError, match="2 questions are answered by only one of one and two"
    ):
        read(tmp_path, rows, PARTIAL)


def test_with_by_text_ids_count_for_nothing(tmp_path: Path) -> None:
    rows = [
        {"id": "a-1", "image": "0.jpg", "question": "Is there a cat?", "answer": "cat"},
        {"id": "a-9", "image": "0.jpg", "question": "Is there a bus?", "answer": "bus"},
    ]

    assert read(tmp_path, rows, Matching(by_text=True), ITEMS[:3]) == [("a-0", "cat")]


def test_by_text_takes_questions_with_a_request_behind_also_where_some_lack(tmp_path: Path) -> None:
    row = {"id": 7, "image": "1.jpg", "question": "Is there a dog? Answer with yes or no.",
           "answer": "dog"}  # fmt: skip

    for partial in (False, True):
        rule = Matching(partial=partial, by_text=True)
        assert read(tmp_path, [row], rule, ITEMS[:3]) == [("a-1", "dog")]


def test_some_answers_may_lack_a_part_and_have_another_that_is_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"{part}-0", "part": part, "answer": part} for part in ("a", "c")]

    assert read(tmp_path, rows, PARTIAL) == [("a-0", "a")]
    assert "answers to other parts, which are not scored: c (1 rows)" in capsys.readouterr().err


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    items = [Item(side, f"{side}/1.jpg", "Is there a cat?", side) for side in ("no", "yes")]
    rows = [{"image": f"x/{one.image}", "question": one.question, "answer": one.label}
            for one in reversed(items)]  # fmt: skip

    assert read(tmp_path, rows, Matching(), items) == [("no", "no"), ("yes", "yes")]
    assert read(tmp_path, rows[:1], PARTIAL, items) == [("yes", "yes")]
    bare = [{**row, "image": "1.jpg"} for row in rows]
    with pytest.raises(EvaluationError, match=r"could be any of no/1\.jpg, yes/1\.jpg"):
        read(tmp_path, bare, Matching(), items)


def test_a_part_that_a_row_names_counts_though_ids_alone_would_do(tmp_path: Path) -> None:
    swapped = [{"id": item.id, "part": "ab".replace(item.part, ""), "answer": "no"}
               for item in ITEMS]  # fmt: skip
    with pytest.raises(EvaluationError, match="has no answer to question_id a-0"):
        read(tmp_path, swapped, Matching())


def test_only_questions_that_are_scored_may_not_have_two_answers(tmp_path: Path) -> None:
    rows = [{"image": "0.jpg", "question": f"Is there a {thing}?", "answer": thing}
            for thing in ("cat", "bus", "bus")]  # fmt: skip

    assert read(tmp_path, rows, Matching(by_text=True), ITEMS[:3]) == [("a-0", "cat")]
    with pytest.raises(EvaluationError, match="entry 4 answers the same question as entry 1"):
        read(tmp_path, [*rows, rows[0]], Matching(by_text=True), ITEMS[:3])
