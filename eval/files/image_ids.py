"""Ids of pictures: a number if the name has one like COCO's, else the name itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

ImageId = int | str
"""COCO's number of a picture, or the name of a picture without a number."""

# Formats that PIL reads and that cameras, scanners or web pages write.
PICTURE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".jp2", ".avif",
)  # fmt: skip
# COCO pads numbers to twelve digits; such a name means the same picture in any folder.
_COCO_NAME: Final = re.compile(r"(.*[/\\])?([^/\\]*[^/\\0-9])?([0-9]{12})(\.[A-Za-z0-9]+)?")
MAX_DIGITS: Final = 99
DIGITS: Final = "0123456789"


def image_id_of(value: Any) -> ImageId | None:
    """Return the id that a value states, or the id of the picture with this name.

    Whole numbers are ids, also as text. For names that end in twelve digits, like COCO's, the id is
    that number, in any folder, with or without a suffix; likewise for names of picture files
    without a folder that end in a number. Any other name is itself the id, such as "kitchen/1.jpg".

    Returns:
        The id; None for other values: negative numbers, fractions, truth values, empty text.
    """
    if isinstance(value, str):
        return _id_of_text(value.strip())
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**MAX_DIGITS else None


def image_ids_of(texts: Collection[str]) -> list[ImageId | None]:
    """Return `image_id_of` of each text; fast if all are numbers, as in COCO."""
    digits = "".join(texts)
    numbers = digits.isdigit() and digits.isascii() and "" not in texts
    if numbers and max(map(len, texts)) <= MAX_DIGITS:
        return list(map(int, texts))
    return list(map(image_id_of, texts))


def sort_key(image_id: ImageId) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers first, by value, and then names."""
    if isinstance(image_id, str):
        return True, 0, image_id
    return False, image_id, ""


def _id_of_text(text: str) -> ImageId | None:
    number = text.removesuffix(".0")
    if number.isdigit() and number.isascii() and len(number) <= MAX_DIGITS:
        return int(number)
    if coco := _COCO_NAME.fullmatch(text):
        return int(coco[3])
    name, dot, suffix = text.rpartition(".")
    number_at = len(name.rstrip(DIGITS))
    is_picture = f"{dot}{suffix.lower()}" in PICTURE_SUFFIXES
    is_outside = "/" not in name and "\\" not in name
    if is_picture and is_outside and 0 < len(name) - number_at <= MAX_DIGITS:
        return int(name[number_at:])
    return None if _is_number(text) or not text else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
