"""COCO's files as other tools write them: ids as text, names for ids, and files of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.coco import Instances, read_captions, read_instances


def instances(path: Path, image_id: Any, category_id: Any) -> Path:
    content = {
        "images": [{"id": image_id, "file_name": "x.jpg"}],
        "annotations": [{"image_id": image_id, "category_id": category_id}],
        "categories": [{"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("image_id", "category_id", "expected"),
    [(7, 3, 7), ("7", 3, 7), (7.0, 3, 7), (7, "3", 7), ("kitchen.jpg", "3", "kitchen.jpg")],
)
def test_ids_may_be_text(
    tmp_path: Path, image_id: Any, category_id: Any, expected: int | str
) -> None:
    path = instances(tmp_path / "instances.json", image_id, category_id)

    assert read_instances(path) == Instances({expected: "x.jpg"}, {expected: {"car"}})


def test_captions_may_have_categories(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    rows = [{"image_id": "7", "caption": "A car."}, {"image_id": 8, "caption": "A bus."}]
    path.write_text(json.dumps({"annotations": rows, "categories": [{"id": 3, "name": "car"}]}))

    assert read_captions(path) == [(7, "A car."), (8, "A bus.")]


def test_a_caption_is_text(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"annotations": [{"image_id": 7, "caption": null}]}')

    with pytest.raises(EvaluationError, match="entry 1 of its annotations has 'caption' None"):
        read_captions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a COCO annotation file of this kind"),
        ('{"images": 5, "annotations": [], "categories": []}', "is not a COCO annotation file"),
        ('{"images": [{"id": -1, "file_name": "x"}], "annotations": [], "categories": []}',
         "entry 1 of its images has 'id' -1, which is not an image id"),
        ('{"images": [], "annotations": [{"image_id": 1, "category_id": 1}], '
         '"categories": [{"id": 1, "name": "car"}]}', "names image 1, which is not in its images"),
        ("[" * 100_000, "is not complete JSON"),
    ],
)  # fmt: skip
def test_other_files_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)

    with pytest.raises(EvaluationError, match=message):
        read_instances(path)
