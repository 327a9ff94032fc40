"""Dataclasses read from files, with types checked field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, Final, TypeVar

_TYPES: Final = {
    "int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "None": (type(None),),
}  # fmt: skip
# Far above any count or time here; larger numbers overflow when means are computed.
LARGEST: Final = 1 << 63
_WORDS: Final = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
    "None": "null", "NoneType": "null", "dict": "an object", "list": "a list",
}  # fmt: skip
Row = TypeVar("Row")


def row_of(kind: type[Row], value: Any, what: str) -> Row:
    """Return a dataclass built from a JSON object.

    Args:
        kind: The dataclass.
        value: Expected to be an object with its fields.
        what: Description of the object, for error messages.
    Raises:
        TypeError: If it is not; the message describes the problem.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{what} is {value!r:.60}, not an object")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name, item in known.items():
        if item.default is MISSING and item.default_factory is MISSING and name not in value:
            raise TypeError(f"{what} has no {name!r}")
    for name in value:
        if name not in known:
            raise TypeError(f"{what} has {name!r:.60}, which is unknown")
    row = kind(**value)
    check_types(row)
    return row


def describe_types(kinds: Sequence[str]) -> str:
    """Return types in words: "a number or null" for float | None."""
    return " or ".join(_WORDS[kind] for kind in kinds)


def check_types(row: Any) -> None:
    """Check that the values of a dataclass read from a file have the declared types.

    Raises:
        TypeError: Naming the first field that has not, or whose number is too large. Fields of
            other types are not checked.
    """
    for item in fields(row):
        value, kinds = getattr(row, item.name), str(item.type).split(" | ")
        if not all(kind in _TYPES for kind in kinds):
            continue
        if not any(type(value) in _TYPES[kind] for kind in kinds):
            raise TypeError(f"{item.name} is {value!r:.60}, not {describe_types(kinds)}")
        # Ids, which may be text, are not used in arithmetic.
        is_number = type(value) in (int, float) and "str" not in kinds
        if is_number and not (abs(value) < LARGEST and isfinite(value)):
            raise TypeError(
                f"{item.name} is {value!r:.60}, which is not a finite number below 2**63"
            )
