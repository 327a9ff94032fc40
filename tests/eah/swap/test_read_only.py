"""Folders and files that can only be read."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eah import swap
from tests.eah.swap.installs import run, tree

fork = multiprocessing.get_context("fork")


def as_nobody(function: Callable[[], int]) -> int:
    """Run something without root's rights, in a process of its own; return what it returns."""

    def call(result: Any) -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        result.value = function()

    result = fork.Value("i", -1)
    process = fork.Process(target=call, args=(result,))
    process.start()
    process.join(60)
    return int(result.value)


@pytest.mark.parametrize("state", ["untouched", "swapped"])
def test_a_read_only_tree_is_told_about_and_not_changed(
    tmp_path_factory: pytest.TempPathFactory, site: Path, place: swap.Place, state: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    if state == "swapped":
        swap.install(place)
    for folder in (site, *site.parents):
        if (
            folder.stat().st_uid == os.getuid()
            and folder.is_relative_to("/tmp")
            and folder != Path("/tmp")
        ):
            folder.chmod(0o755)
    place.file.parent.chmod(0o555)
    before, log = tree(site), tmp_path / "log"
    log.touch()
    log.chmod(0o666)

    def action(name: str) -> int:
        with log.open("w") as sys.stderr:
            return run(site, name)

    assert as_nobody(lambda: action("status")) == 0
    assert as_nobody(lambda: action("install")) == (0 if state == "swapped" else 2)
    if state == "untouched":
        assert "Permission denied" in log.read_text()
        assert log.read_text().endswith(
            "run this as the owner of that transformers, or use your own install\n"
        )
    assert as_nobody(lambda: action("restore")) == (2 if state == "swapped" else 0)
    place.file.parent.chmod(0o755)
    assert tree(site) == before


def test_a_read_only_file_in_a_folder_that_can_be_written_is_swapped(
    site: Path, place: swap.Place
) -> None:
    before = tree(site)
    place.file.chmod(0o444)

    swap.install(place)
    assert place.file.stat().st_mode & 0o777 == 0o444
    swap.restore(place)

    assert place.file.stat().st_mode & 0o777 == 0o444
    assert tree(site) == before
