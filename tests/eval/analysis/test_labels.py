"""Which answers hallucinate, on answers and captions made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.analysis.labels import OBJECT, WRONG, answer_labels
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.tasks.base import TaskProtocol
from eval.tasks.chair.task import ChairCaptions, ChairSettings
from eval.tasks.mme import Mme
from eval.tasks.pope.task import Pope, PopeSettings
from eval.tasks.yes_no.settings import YesNoSettings
from tests.eval.analysis.toy import NoLabels

DOG, CAT = "Is there a dog in the image?", "Is there a cat in the image?"
SUFFIX = "\nAnswer with yes or no."


def answer(image: str, question: str, label: str, text: str, part: str = "random") -> Answer:
    return Answer(Item(f"{image} {question}", image, question, label, part), text)


def pope(parser: str = "pope") -> Pope:
    return Pope(PopeSettings(), TaskProtocol(16, suffix=SUFFIX, parser=parser))


def test_wrong_answers_hallucinate_by_picture_and_asked_text() -> None:
    answers = [
        answer("a.jpg", DOG, "yes", "Yes."),
        answer("a.jpg", CAT, "no", "Yes, there is."),
        answer("b.jpg", DOG, "no", "No"),
        answer("b.jpg", CAT, "yes", "no"),
    ]

    found = answer_labels(pope(), answers)

    assert found.hallucinates == {
        ("a.jpg", DOG + SUFFIX): False,
        ("a.jpg", CAT + SUFFIX): True,
        ("b.jpg", DOG + SUFFIX): False,
        ("b.jpg", CAT + SUFFIX): True,
    }
    assert (found.what, found.left_out) == (WRONG, 0)


@pytest.mark.parametrize("parser", ["strict", "substring"])
def test_an_answer_that_is_neither_yes_nor_no_is_left_out(parser: str) -> None:
    answers = [answer("a.jpg", DOG, "yes", "Perhaps"), answer("a.jpg", CAT, "no", "No")]

    found = answer_labels(pope(parser), answers)

    assert found.hallucinates == {("a.jpg", CAT + SUFFIX): False}
    assert found.left_out == 1


def test_a_question_of_several_parts_counts_once() -> None:
    parts = ("random", "popular", "adversarial")
    answers = [answer("a.jpg", DOG, "yes", "no", part) for part in parts]
    answers += [answer("b.jpg", DOG, "yes", text, part)
                for text, part in zip(("no", "yes", "no"), parts, strict=True)]  # fmt: skip

    found = answer_labels(pope(), answers)

    assert found.hallucinates == {("a.jpg", DOG + SUFFIX): True}
    assert found.left_out == 1, "right in one part and wrong in another"


def test_mme_asks_without_its_request_where_the_protocol_has_its_own() -> None:
    task = Mme(YesNoSettings(), TaskProtocol(16, suffix="\nOne word.", parser="first-4"))
    question = "Is this a dog? Please answer yes or no."

    found = answer_labels(task, [answer("a.jpg", question, "yes", "No", "existence")])

    assert found.hallucinates == {("a.jpg", "Is this a dog?\nOne word."): True}


def test_captions_hallucinate_where_chair_finds_an_object_that_is_not_there(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"1": ["dog"], "2": ["cat", "couch"], "3": []}))
    settings = ChairSettings(data_path=tmp_path, score=True, ground_truth=truth, analyzer="lexicon")
    task = ChairCaptions(settings, TaskProtocol(512))
    texts = {1: "A dog beside a kite.", 2: "A cat on a sofa.", 3: "Nothing here"}
    answers = [Answer(Item(i, f"{i}.jpg", "Describe."), text) for i, text in texts.items()]

    found = answer_labels(task, answers)

    assert found.hallucinates == {
        ("1.jpg", "Describe."): True,
        ("2.jpg", "Describe."): False,
        ("3.jpg", "Describe."): False,
    }
    assert (found.what, found.left_out) == (OBJECT, 0)
    with pytest.raises(EvaluationError, match="the ground truth lacks 1 of 1"):
        answer_labels(task, [Answer(Item(4, "4.jpg", "Describe."), "A dog.")])


def test_a_benchmark_that_has_no_hallucinations_is_refused() -> None:
    with pytest.raises(EvaluationError, match="toy doesn't say which answers hallucinate"):
        answer_labels(NoLabels(YesNoSettings(), TaskProtocol(1)), [])
