"""Files of questions and answers: which row answers what, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.mmhal.answers import read_arms
from eval.tasks.mmhal.questions import TYPES, image_of, in_order, read_questions
from tests.eval.mmhal_inputs import answered, rows, write
from tests.eval.small_runs import write_run


def without(name: str, of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in of]


def shuffled(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return random.Random(1).sample(of, len(of))


def texts(arms: Any) -> list[dict[int, str]]:
    return [arm.texts for arm in arms]


def test_a_picture_is_called_like_the_end_of_its_address() -> None:
    assert image_of({"image_src": "https://a.example/b/c_o%20d.jpg?x=1/2"}) == "c_o d.jpg"
    assert image_of({"image_id": "0a"}) == "0a"
    assert image_of({"image_src": "https://[", "image_id": "0a"}) == ""


def test_types_are_the_rows_own_or_follow_from_the_place(tmp_path: Path) -> None:
    own = read_questions(write(tmp_path / "a.json", rows()))
    by_place = read_questions(write(tmp_path / "b.json", without("question_type", rows())))
    moved = read_questions(write(tmp_path / "c.json", shuffled(rows())))

    assert [one.kind for one in own] == [one.kind for one in by_place] == [*TYPES] * 12
    assert in_order(own)
    assert in_order(by_place)
    assert not in_order(moved)
    assert {one.text: one.kind for one in moved} == {one.text: one.kind for one in own}


def test_arms_in_another_order_are_joined_by_picture_and_question(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", answered("one"))
    two = write(tmp_path / "two.json", shuffled(answered("two")))
    lines = "".join(json.dumps(row) + "\n" for row in answered("three"))
    three = write(tmp_path / "three.jsonl", lines)

    questions, arms = read_arms([one, two, three], None)

    assert [arm.name for arm in arms] == ["one", "two", "three"]
    for arm in arms:
        assert list(arm.texts) == list(range(96))
        assert all(
            arm.texts[q.position] == f"{arm.name} says {{}} {{0}} about {q.text}" for q in questions
        )


def test_another_order_is_refused_where_types_follow_from_the_place(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", without("question_type", answered("one")))
    moved = without("question_type", answered("two"))[::-1]
    two = write(tmp_path / "two.json", moved)
    with pytest.raises(EvaluationError, match=r"entry 1 is row 96 of .*one\.json, and neit"):
        read_arms([one, two], None)

    questions = write(tmp_path / "q.json", rows())
    read, arms = read_arms([one, two], questions)

    assert in_order(read)
    assert arms[1].texts[0] == f"two says {{}} {{0}} about {read[0].text}"


def test_rows_of_another_tool_are_joined_to_the_question_file(tmp_path: Path) -> None:
    questions = write(tmp_path / "q.json", rows())
    bare = [{"question": r["question"], "model_answer": r["model_answer"]} for r in answered("a")]

    _, arms = read_arms([write(tmp_path / "a.json", bare)], questions)

    assert texts(arms) == texts(read_arms([write(tmp_path / "b.json", answered("a"))], None)[1])
    with pytest.raises(EvaluationError, match=r"entry 1: .* does not ask 'What is this, number"):
        read_arms([write(tmp_path / "c.json", shuffled(bare))], questions)
    with pytest.raises(
        EvaluationError, match=r"has 95 rows, but .* has 96; rows without a picture"
    ):
        read_arms([write(tmp_path / "d.json", bare[1:])], questions)


def test_missing_answers_are_no_answers(tmp_path: Path) -> None:
    of = answered("a")
    of[3]["model_answer"] = None
    of[5]["model_answer"] = ""
    questions = write(tmp_path / "q.json", rows())

    (arm,) = read_arms([write(tmp_path / "a.json", of[:90])], questions)[1]

    assert set(arm.texts) == set(range(90)) - {3}
    assert arm.texts[5] == ""


def test_arms_of_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eval.files.answers import Item

    questions = write(tmp_path / "q.json", rows())
    items = [Item(q.position, q.image, q.text) for q in read_questions(questions)]
    run = write_run(
        tmp_path / "run", {"baseline": lambda i: f"no {i.id}", "eah": lambda i: "yes"}, items,
        benchmark="mmhal",
    )  # fmt: skip

    _, arms = read_arms([run], questions)

    assert {arm.name: arm.texts[95] for arm in arms} == {"baseline": "no 95", "eah": "yes"}
    with pytest.raises(EvaluationError, match="is a run folder, which has no reference answers"):
        read_arms([run], None)
    with pytest.raises(EvaluationError, match=r"96 questions of .* differ from those of"):
        read_arms([run], write(tmp_path / "r.json", list(reversed(rows()))))
    with pytest.raises(EvaluationError, match="has answers to pope, not to mmhal"):
        read_arms([write_run(tmp_path / "pope", {"eah": lambda i: "yes"})], questions)


def test_names_that_several_have(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder / "answers_eah.json", answered(folder)))

    arms = read_arms(paths, None)[1]

    assert [arm.name for arm in arms] == [f"{path}:eah" for path in paths]
    with pytest.raises(EvaluationError, match=r"names .* twice"):
        read_arms([paths[0], paths[0]], None)


def changed(**changes: Any) -> list[dict[str, Any]]:
    of = answered("a")
    of[2] = {**of[2], **changes}
    return of


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no questions"),
        (answered("a")[:95], None),
        (without("question_type", answered("a"))[:95], "has 95 rows without question_type"),
        (changed(question_type=None), "95 of 96 rows have a question_type"),
        (changed(question_type=7), "entry 3 has the question_type 7"),
        (changed(image_content="Cup, Dog"), "entry 3 has the image_content 'Cup, Dog'; a list"),
        (changed(image_content=[1]), "a list of labels is needed"),
        (changed(question=" "), "entry 3 has the question ' '"),
        (changed(gt_answer=None), "entry 3 has no 'gt_answer'"),
        (changed(model_answer=5), "model_answer is 5; text or null is needed"),
        (without("model_answer", answered("a")), "entry 1 has no 'model_answer'"),
        ([*answered("a"), answered("b")[4]], "in rows 5 and 97, but each question must be unique"),
        (rows(), "has no answers, every model_answer is empty"),
    ],
)  # fmt: skip
def test_files_with_faults(tmp_path: Path, content: Any, message: str | None) -> None:
    path = write(tmp_path / "answers.json", content)
    if message is None:
        assert len(read_arms([path], None)[0]) == 95
        return
    with pytest.raises(EvaluationError) as caught:
        read_arms([path], None)

    assert message in str(caught.value)


def test_arms_of_other_questions_or_references_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", answered("a"))
    with pytest.raises(EvaluationError, match=r"does not ask 'Why\?' about 00000002_o[.]jpg"):
        read_arms([first, write(tmp_path / "b.json", changed(question="Why?"))], None)
    with pytest.raises(EvaluationError, match="entry 3 has another gt_answer than"):
        read_arms([first, write(tmp_path / "b.json", changed(gt_answer="No."))], None)
    twice = [*answered("b")[:95], answered("b")[0]]
    with pytest.raises(EvaluationError, match="entry 96 answers question 1 again"):
        read_arms([first, write(tmp_path / "b.json", twice)], None)
