"""Settings have the type that their dataclass declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.values import convert


@pytest.mark.parametrize(
    ("kind", "value", "converted"),
    [
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("float | None", 0.5, 0.5),
        ("str | None", None, None),
        ("int | None", "auto", None),
        ("bool", False, False),
        ("Path", "x/y", Path("x/y")),
        ("Path | None", Path("x"), Path("x")),
        ("tuple[int, ...] | None", [1, 2], (1, 2)),
        ("tuple[str, ...]", "random", ("random",)),
        ("tuple[float, ...]", (1, 2.5), (1.0, 2.5)),
    ],
)
def test_a_value_of_the_type_is_taken(kind: str, value: Any, converted: Any) -> None:
    found = convert("name", kind, value, "x.yaml")

    assert found == converted
    assert type(found) is type(converted)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert convert("name", "Path", "~/x", "x.yaml") == Path("/home/me/x")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", True),
        ("int", 3.0),
        ("int", "auto"),
        ("int", None),
        ("float", "3"),
        ("float", False),
        ("str", 3),
        ("str | None", 3),
        ("bool", 1),
        ("Path", 3),
        ("tuple[int, ...]", ["a"]),
    ],
)
def test_other_values_are_named(kind: str, value: Any) -> None:
    with pytest.raises(EvaluationError, match=r"^x\.yaml: name is .*must be of type \w+$"):
        convert("name", kind, value, "x.yaml")
