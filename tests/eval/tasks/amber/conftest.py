"""NLTK's data, and AMBER's files as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def nltk_data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let NLTK find its data, also in programs that a test starts."""
    nltk = pytest.importorskip("nltk")
    folder = shared / "nltk_data"
    monkeypatch.setattr(nltk.data, "path", [str(folder), *nltk.data.path])
    monkeypatch.setenv("NLTK_DATA", str(folder))
    return folder


@pytest.fixture
def real_amber(shared: Path) -> Path:
    folder = shared / "benchmarks/amber"
    if not folder.is_dir():
        pytest.skip("no reference data: shared/benchmarks/amber is not there")
    return folder
