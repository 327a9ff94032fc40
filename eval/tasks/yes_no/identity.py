"""Compare the ids, pictures and texts of questions across the conventions of different tools."""

from __future__ import annotations

import re
from typing import Any, Final

PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# MME's questions end with a request that LLaVA and lmms-eval replace by their own.
REQUEST: Final = " Please answer yes or no."
_COCO: Final = re.compile(r"(?:coco_(?:train|val|test)\d{4}_)?(\d+)")
_NUMBER: Final = re.compile(r"([0-9]{1,18})(\.0+)?")


def id_of(value: Any) -> int | str | None:
    """Return an id; "0001" and 1.0 (from pandas) become whole numbers; None if it is not an id."""
    if isinstance(value, str) and value.strip():
        number = _NUMBER.fullmatch(value.strip())
        return int(number[1]) if number else value.strip()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def slashes(name: str) -> str:
    """Return a file name with forward slashes, which every system reads."""
    return name.strip().replace("\\", "/")


def picture_key(name: int | str) -> str:
    """Return a picture's key: its name without folders and suffix, or COCO's image id."""
    last = slashes(str(name)).rpartition("/")[2].casefold()
    suffix = next((end for end in PICTURE_SUFFIXES if last.endswith(end)), "")
    stem = last.removesuffix(suffix)
    number = _COCO.fullmatch(stem)
    return number[1].lstrip("0") or "0" if number else stem


def words(text: str) -> str:
    """Return a text with normalised white space and case."""
    return " ".join(text.split()).casefold()


def asks(prompt: str, question: str) -> bool:
    """Return whether a prompt contains a question."""
    asked = words(question)
    return asked.removesuffix(words(REQUEST)).strip() in words(prompt)


def same_picture(one: int | str, other: int | str) -> bool:
    """Return whether two names identify the same picture."""
    return picture_key(one) == picture_key(other)
