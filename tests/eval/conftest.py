"""What is checked in every test of the evaluations: printed tables fit into 100 columns."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest

from tests.eval.tables import widest_table_line


@pytest.fixture
def wide_tables() -> None:
    """Taken by a test that prints tables of any width, as `--wide` does."""


@pytest.fixture(autouse=True)
def tables_fit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose process a command printed a table that is wider than 100 columns."""
    own, widest = builtins.print, [""]

    def printing(*values: object, **options: Any) -> None:
        lines = "".join(str(value) + "\n" for value in values).splitlines()
        widest.extend(line for line in lines if widest_table_line(line) > len(widest[-1]))
        own(*values, **options)

    monkeypatch.setattr(builtins, "print", printing)
    yield
    if "wide_tables" not in request.fixturenames:
        assert len(widest[-1]) <= 100, widest[-1]
