"""The measurement of loading runs, on a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench.loading import WAYS, load, make_folder


@pytest.mark.parametrize("way", WAYS)
def test_every_way_loads_the_folder(tmp_path: Path, way: str) -> None:
    make_folder(tmp_path, width=64, layers=1)

    seconds, mebibytes = load(way, str(tmp_path))

    assert seconds > 0
    assert 0 <= mebibytes < 2000
