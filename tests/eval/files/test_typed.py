"""Rows of files as dataclasses: what is wrong with one is said in words."""

from __future__ import annotations

from typing import Any

import pytest

from eval.files.answers import Finding
from eval.files.typed import row_of
from eval.run.costs import BatchCost

FOUND = {"layer": 1, "head": None, "sinks": 2, "image_tokens": 64, "saturated": False}


def test_a_row_comes_back() -> None:
    assert row_of(Finding, FOUND, "it") == Finding(1, None, 2, 64, False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "it is 5, not an object"),
        (None, "it is None, not an object"),
        ([FOUND], "not an object"),
        ({}, "it has no 'layer'"),
        (FOUND | {"x": 1}, "it has 'x', which is unknown"),
        (FOUND | {"layer": True}, "layer is True, not a whole number"),
        (FOUND | {"sinks": 1 << 63}, "not a finite number"),
    ],
)
def test_what_is_no_row_is_said(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        row_of(Finding, value, "it")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 10**400])
def test_times_are_numbers(seconds: float) -> None:
    with pytest.raises(TypeError, match="seconds is"):
        row_of(BatchCost, {"batch": "a", "seconds": seconds}, "it")
