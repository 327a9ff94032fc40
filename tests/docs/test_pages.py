"""Every command and snippet of the pages runs and prints what the page shows, or names its need.

The pages' blocks run in order, each page in its own copy of the folder that getting-started leaves.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.scenes.scene import render
from tests.docs.blocks import blocks_of, command_lines, matches
from tests.docs.shell import run_block, unknown_flags

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "docs/getting-started.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IN_A_CHECKOUT = ("configs", "docs", "eah", "eval", "models", "scripts")


def run_page(page: Path) -> None:
    """Run the blocks of a page in the current folder; compare what they print with the page."""
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks_of(page):
        if not block.runs:
            continue
        where = f"{page.name}, line {block.line}"
        done = run_block(block, names)
        if block.output is None:
            assert done.status == 0, f"{where}: status {done.status}\n{done.errors}"
        else:
            shown = f"the page shows\n{block.output}\nand this was printed\n{done.seen}"
            assert matches(block.output, done.seen), f"{where}: {shown}"


@pytest.fixture(autouse=True)
def no_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("COLUMNS", "100")
        yield


def make_checkout(folder: Path) -> Path:
    """Fill a folder with what the pages' commands find: the project, and a picture."""
    for name in IN_A_CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    if not (folder / "cat.jpg").exists():
        render(random.Random(0)).image.save(folder / "cat.jpg")
    return folder


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that getting-started leaves."""
    folder = make_checkout(tmp_path_factory.mktemp("started"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_page(FIRST)
    finally:
        os.chdir(before)
    return folder


def test_the_first_page_runs(started: Path) -> None:
    assert (started / "data/scenes/val2014").is_dir()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != FIRST], ids=lambda page: page.stem
)
def test_a_page_runs(
    page: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(block.runs for block in blocks_of(page)):
        return  # its commands' flags are checked below
    make_checkout(tmp_path)
    for entry in started.iterdir():
        if entry.name not in IN_A_CHECKOUT:
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, tmp_path / entry.name)
    monkeypatch.chdir(tmp_path)

    run_page(page)


def unrun_commands() -> list[tuple[str, list[str]]]:
    """Return where each command of a block that needs something stands, and its words."""
    found = []
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "bash" and block.needs is not None:
                for line in command_lines(block.code):
                    words = shlex.split(line, comments=True)
                    start = words.index("python") if "python" in words else 0
                    found.append((f"{page.name}, line {block.line}", words[start:]))
    return found


def test_flags_of_commands_that_need_something_exist() -> None:
    unknown = {where: flags for where, words in unrun_commands() if (flags := unknown_flags(words))}

    assert unknown == {}


def test_flags_that_do_not_exist_are_found() -> None:
    words = ["python", "eval/pope_eval.py", "--model", "x", "--pope_type", "all", "--bean", "5"]

    assert unknown_flags(words) == ["--bean"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("acc 12.5\n", "acc   13.5\n", True),
        ("acc 12.5\n", "precision 12.5\n", False),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nb\nc\n", False),
        ("run opera-7c1f0a2e\n", "run opera-0011ffee\n", True),
        ("run ... done\n", "run all done\n", True),
        ("a\n", "a\nb\n", False),
    ],
)
def test_what_a_page_shows_is_compared(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
