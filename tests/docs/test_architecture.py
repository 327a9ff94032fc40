"""docs/architecture.md is a map of the tree: what it names exists, and it leaves no room out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eval.test_tree import LAYERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PACKAGES = ("eah", "models", "eval", "scripts")
SUFFIXES = r"\.(?:py|sh|yaml|md|json)"


def tree() -> Iterator[tuple[str, str]]:
    """Yield each path of the map from the root, and its description."""
    lines = PAGE.split("```\n")[1].splitlines()
    above = [""]
    for line in lines:
        indent = len(line) - len(line.lstrip())
        assert indent % 2 == 0, line
        names, _, description = line.strip().partition("  ")
        above = above[: indent // 2 + 1]
        for name in names.split():
            yield above[-1] + name, description
        above.append(above[-1] + names)


PATHS = dict(tree())


def test_the_map_is_read_right() -> None:
    assert PATHS["eah/swap/reach/"].startswith("`python -m eah.swap check`")
    assert {"models/decoding/steps/", "eval/tasks/pope/", "eval/tasks/chair/"} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_every_entry_of_the_map_exists_and_is_described(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()
    assert PATHS[path]


def test_every_path_in_the_text_exists() -> None:
    text = PAGE.split("```")[2]
    named = re.findall(rf"`((?:[\w-]+/)*[\w-]+(?:{SUFFIXES}|/))`", text)
    paths = {name for name in named if "/" in name}

    assert len(paths) > 30
    assert [
        path for path in paths if not any((ROOT / at / path).exists() for at in ("", "eval"))
    ] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_and_command_of_a_package_is_on_the_map(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")} - {ROOT / package}
    rooms = {f"{folder.relative_to(ROOT).as_posix()}/" for folder in folders}
    commands = {f"eval/{name}.py" for name in ("evaluate", "runs", "sinks", "pope_eval", "chair")}

    assert rooms, package
    assert rooms | (commands if package == "eval" else set()) <= set(PATHS)


def test_the_order_of_imports_is_that_of_test_tree() -> None:
    order = re.search(r"Imports go one way: (.+?)\.", PAGE)

    assert order is not None
    assert tuple(re.findall(r"`(\w+)`", order[1])) == LAYERS[::-1]
