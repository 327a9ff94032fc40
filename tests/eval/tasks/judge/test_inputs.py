"""What the judge is told is in a picture: COCO's own annotations, or a file of objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.inputs import JudgeInputs, References, read_references
from scripts.scenes.make import write_scenes


def references(ids: list[int], coco_path: Path | None, ground_truth: Path | None) -> References:
    return read_references(JudgeInputs(coco_path=coco_path, ground_truth=ground_truth), ids)


def test_objects_are_those_of_the_annotations(tmp_path: Path) -> None:
    write_scenes(tmp_path, count=4, seed=5)
    path = tmp_path / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = [image["id"] for image in content["images"]]

    found = references(ids, path.parent, None)

    for image_id in ids:
        assert found.objects[image_id] == sorted(
            {names[one["category_id"]] for one in content["annotations"]
             if one["image_id"] == image_id}
        )  # fmt: skip
    assert len(found.kinds) == 80
    assert any(found.objects.values())


def test_bad_references_are_one_sentence(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text('{"1": ["dog"]}')
    with pytest.raises(EvaluationError, match="pass either --coco_path"):
        references([1], tmp_path, truth)
    with pytest.raises(
        EvaluationError, match="lacks 1 of 2 pictures, the first is that of image id 7"
    ):
        references([1, 7], None, truth)
    with pytest.raises(EvaluationError, match=r"has neither instances_val2014\.json nor"):
        references([1], tmp_path, None)


def test_other_objects_have_another_hash(tmp_path: Path) -> None:
    hashes = set()
    for objects in (["dog"], ["cat"]):
        (tmp_path / "t.json").write_text(json.dumps({"1": objects}))
        found = references([1], None, tmp_path / "t.json")
        hashes.add(found.hash())

    assert len(hashes) == 2
