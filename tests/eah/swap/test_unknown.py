"""A file of unknown origin in the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import error_of, ours, run, tree


@pytest.mark.parametrize("ending", [b"\n", b"\r\n# \xff\xfe", b'\nVERSION: Final = "1.0"\n'])
def test_something_else_is_only_replaced_by_force_and_comes_back(
    site: Path, place: swap.Place, ending: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    place.file.write_bytes(place.file.read_bytes() + b"# patched by hand" + ending)
    before = tree(site)

    assert run(site, "install") == 2
    assert "pass --force to keep it" in error_of(capsys)
    assert tree(site) == before

    assert run(site, "install", "--force") == 0
    assert place.file.read_bytes() == ours()
    assert run(site, "install") == 0
    assert run(site, "restore") == 0
    assert tree(site) == before
    assert run(site, "restore") == 0
    assert tree(site) == before


def test_restore_does_not_overwrite_a_file_of_unknown_origin(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    original = tree(site)
    swap.install(place)
    place.file.write_text("written_by = 'hand'\n")
    before = tree(site)

    assert run(site, "restore") == 2

    assert "that you don't want, and run this again" in error_of(capsys)
    assert tree(site) == before
    place.file.unlink()
    assert run(site, "restore") == 0
    assert tree(site) == original
