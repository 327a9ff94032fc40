"""Whether two files mean the same question: ids, pictures and texts as tools write them."""

from __future__ import annotations

import re
from typing import Any, Final

PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# MME's questions end in a request that LLaVA and lmms-eval replace by their own.
REQUEST: Final = " Please answer yes or no."
_COCO: Final = re.compile(r"(?:coco_(?:train|val|test)\d{4}_)?(\d+)")
_NUMBER: Final = re.compile(r"([0-9]{1,18})(\.0+)?")


def id_of(value: Any) -> int | str | None:
    """Return an id, with whole numbers as such, also "0001" and pandas' 1.0; None if it is none."""
    if isinstance(value, str) and value.strip():
        number = _NUMBER.fullmatch(value.strip())
        return int(number[1]) if number else value.strip()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def slashes(name: str) -> str:
    """Return a file name as every system reads it."""
    return name.strip().replace("\\", "/")


def picture_key(name: int | str) -> str:
    """Return what identifies a picture: its name without folders and suffix, or COCO's number."""
    last = slashes(str(name)).rpartition("/")[2].casefold()
    suffix = next((end for end in PICTURE_SUFFIXES if last.endswith(end)), "")
    stem = last.removesuffix(suffix)
    number = _COCO.fullmatch(stem)
    return number[1].lstrip("0") or "0" if number else stem


def words(text: str) -> str:
    """Return a text without differences in white space and case."""
    return " ".join(text.split()).casefold()


def asks(prompt: str, question: str) -> bool:
    """Return whether a prompt holds a question, whatever stands around it."""
    asked = words(question)
    return asked.removesuffix(words(REQUEST)).strip() in words(prompt)


def same_picture(one: int | str, other: int | str) -> bool:
    """Return whether two names are of one picture."""
    return picture_key(one) == picture_key(other)
