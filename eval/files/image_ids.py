"""Ids of pictures: a number where the name has one as COCO's do, else the name itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

ImageId = int | str
"""COCO's number of a picture, or the name of one that has none."""

# What PIL reads and a camera, scanner or web page writes.
PICTURE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".jp2", ".avif",
)  # fmt: skip
# COCO pads its numbers to twelve digits: such a name is the same picture in any folder.
_COCO_NAME: Final = re.compile(r"(.*[/\\])?([^/\\]*[^/\\0-9])?([0-9]{12})(\.[A-Za-z0-9]+)?")
MAX_DIGITS: Final = 99
DIGITS: Final = "0123456789"


def image_id_of(value: Any) -> ImageId | None:
    """Return the id that a value is, or that the picture of this name has.

    Whole numbers are ids, also as text. Names that end in twelve digits, as COCO's do, have that
    number, in any folder and with or without a suffix; so have names of picture files outside of
    folders that end in a number. Every other name is an id itself, as "kitchen/1.jpg".

    Returns:
        The id; None for other values: negative numbers, fractions, truth values, empty text.
    """
    if isinstance(value, str):
        return _id_of_text(value.strip())
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**MAX_DIGITS else None


def image_ids_of(texts: Collection[str]) -> list[ImageId | None]:
    """Return `image_id_of` each; many numbers, as COCO has, are read at once."""
    digits = "".join(texts)
    numbers = digits.isdigit() and digits.isascii() and "" not in texts
    if numbers and max(map(len, texts)) <= MAX_DIGITS:
        return list(map(int, texts))
    return list(map(image_id_of, texts))


def order(image_id: ImageId) -> tuple[bool, int, str]:
    """Return a key that sorts numbers by value, and names behind them."""
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
