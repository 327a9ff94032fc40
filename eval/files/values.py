"""Convert a setting from YAML or a flag to the type that its dataclass declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError

_TYPES: Final = {"int": int, "float": float, "str": str, "bool": bool}


def convert(name: str, kind: str, value: Any, source: str) -> Any:
    """Return a value of a setting's type.

    Args:
        name: The setting.
        kind: Its type as written in a dataclass, such as "tuple[int, ...] | None".
        value: From YAML or a flag. "auto" means None if the type is "int | None".
        source: Origin of the value, for error messages.
    Raises:
        EvaluationError: If the value is not of that type.
    """
    optional = kind.endswith("| None")
    kind = kind.removesuffix("| None").strip()
    if optional and (value is None or (value == "auto" and kind == "int")):
        return None
    if kind.startswith("tuple"):
        items = value if isinstance(value, (list, tuple)) else [value]
        item_kind = kind.removeprefix("tuple[").split(",")[0].removesuffix("]")
        return tuple(convert(name, item_kind, item, source) for item in items)
    if kind == "Path" and isinstance(value, (str, Path)):
        return path_of(value, f"{source}: {name}")
    if kind == "float" and type(value) is int:
        return float(value)
    if kind not in _TYPES or type(value) is not _TYPES[kind]:
        raise EvaluationError(f"{source}: {name} is {value!r:.60}, but it must be of type {kind}")
    return value


def path_of(value: str | Path, what: str) -> Path:
    """Return a path, with a leading ~ expanded.

    Args:
        value: The path as given.
        what: What the path is for, used in error messages.
    Raises:
        EvaluationError: If it is not a valid path.
    """
    if "\0" in str(value):
        raise EvaluationError(
            f"{what}: {str(value)!r:.60} has a zero byte, which is not allowed in a path; remove it"
        )
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise EvaluationError(
            f"{what}: {str(value)!r:.60} starts with an unknown user name; write out the path"
        ) from error
