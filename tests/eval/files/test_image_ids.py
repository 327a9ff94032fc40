"""Ids of pictures: numbers as COCO writes them anywhere, else names."""

from __future__ import annotations

import pytest

from eval.files.image_ids import ImageId, image_id_of, order


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (42, 42), (42.0, 42), ("42", 42), (" 42 ", 42), ("000000000042", 42), ("42.0", 42),
        ("COCO_val2014_000000000042.jpg", 42), ("COCO_val2014_000000000042", 42),
        ("/data/val2014/COCO_val2014_000000000042.jpg", 42), ("val2017/000000000042.webp", 42),
        (r"D:\coco\COCO_val2014_000000000042.jpg", 42), ("a7.PNG", 7), ("1.5.tiff", 5),
        ("kitchen.jpg", "kitchen.jpg"), ("kitchen", "kitchen"), ("kitchen/1.jpg", "kitchen/1.jpg"),
        ("IMG_2031 (1).jpg", "IMG_2031 (1).jpg"), ("IMG_2031", "IMG_2031"), ("7.txt", "7.txt"),
    ],
)  # fmt: skip
def test_numbers_and_names(value: object, expected: ImageId) -> None:
    assert image_id_of(value) == expected
    # What is an id stays it, so that captions that we write are of the pictures that we read.
    assert image_id_of(image_id_of(value)) == expected


@pytest.mark.parametrize(
    "value", [None, True, -1, 1.5, "-1", "1.5", "nan", "", " ", [1], {}, "1" * 5000]
)
def test_what_is_no_id(value: object) -> None:
    assert image_id_of(value) is None


def test_numbers_are_sorted_by_value_before_names() -> None:
    assert sorted(["b", 10, "a", 9], key=order) == [9, 10, "a", "b"]
