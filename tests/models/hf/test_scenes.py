"""The scenes' questions are POPE's, and their labels are true of what was drawn."""

from __future__ import annotations

import pytest

from eval.tasks.pope.questions import POPE_TYPES, read_questions
from scripts.scenes.make import scene_of
from scripts.scenes.text import question
from tests.models.hf.scenes import COUNT, SEED, Scenes


@pytest.mark.parametrize("pope_type", POPE_TYPES)
def test_question_files_hold_true_labels(pope_type: str, scenes: Scenes) -> None:
    items = read_questions(scenes.pope / f"coco_pope_{pope_type}.json", pope_type)
    assert items == scenes.questions[pope_type]
    drawn = {
        f"COCO_val2014_{index + 1:012d}.jpg": {
            question(name) for name in scene_of(SEED, index)[0].names
        }
        for index in range(COUNT)
    }
    assert {item.image for item in items} == set(drawn)
    assert sum(item.label == "yes" for item in items) * 2 == len(items)
    for item in items:
        assert (item.question in drawn[item.image]) == (item.label == "yes")


def test_every_picture_is_there_and_different(scenes: Scenes) -> None:
    pictures = scenes.pictures()
    assert len({picture.tobytes() for picture in pictures}) == COUNT
