"""Ids of pictures: numbers as COCO writes them anywhere, else names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.files.image_ids import ImageId, image_id_of, image_ids_of, sort_key


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (42, 42), (42.0, 42), ("42", 42), (" 42 ", 42), ("000000000042", 42), ("42.0", 42),
        ("COCO_val2014_000000000042.jpg", 42), ("COCO_val2014_000000000042", 42),
        ("/data/val2014/COCO_val2014_000000000042.jpg", 42), ("val2017/000000000042.webp", 42),
        (r"D:\coco\COCO_val2014_000000000042.jpg", 42), ("a7.PNG", 7), ("1.5.tiff", 5),
        ("kitchen.jpg", "kitchen.jpg"), ("kitchen", "kitchen"), ("kitchen/1.jpg", "kitchen/1.jpg"),
        ("IMG_2031 (1).jpg", "IMG_2031 (1).jpg"), ("IMG_2031", "IMG_2031"), ("7.txt", "7.txt"),
        ("1" * 100 + ".jpg", "1" * 100 + ".jpg"), ("x" + "1" * 99 + ".jpg", int("1" * 99)),
        ("..jpg", "..jpg"), ("1..jpg", "1..jpg"),
    ],
)  # fmt: skip
def test_numbers_and_names(value: object, expected: ImageId) -> None:
    assert image_id_of(value) == expected
    # What is an id stays it, so that captions that we write are of the pictures that we read.
    assert image_id_of(image_id_of(value)) == expected


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 1.5, "-1", "1.5", "nan", "", " ", [1], {}, "1" * 5000, 10**1000, 1e300, b"1"],
)
def test_what_is_no_id(value: object) -> None:
    assert image_id_of(value) is None


def test_numbers_are_sorted_by_value_before_names() -> None:
    assert sorted(["b", 10, "a", 9], key=sort_key) == [9, 10, "a", "b"]


def test_a_name_of_many_digits_takes_no_time() -> None:
    """To try every digit as the first of the number is quadratic: minutes."""
    for end in ("x", "x.jpg", ".jpgx"):
        name = "1" * 200_000 + end
        assert image_id_of(name) == name


@given(
    st.dictionaries(
        st.sampled_from(["0", "7", "007", "²", "٣", "", "1.0", "a", "9" * 100]), st.none()
    )
)
def test_many_are_read_as_one_is(texts: dict[str, None]) -> None:
    assert image_ids_of(texts) == [image_id_of(text) for text in texts]


PARTS = st.sampled_from(["0", "12", "000000000042", ".", "/", "\\", " ", ".jpg", ".PNG", "a", "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.lists(PARTS, max_size=8).map("".join),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)  # fmt: skip


@given(VALUES)
def test_any_value_has_an_id_or_none(value: object) -> None:
    found = image_id_of(value)

    assert found is None or (type(found) in (int, str) and image_id_of(found) == found)
