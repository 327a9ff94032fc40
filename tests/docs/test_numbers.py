"""Computed numbers are those that a page's blocks print; measured ones name their command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import Block, blocks_of
from tests.docs.shell import run_block

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def arithmetic(page: str) -> list[Block]:
    """Return the Python blocks of a page that run no model."""
    blocks = blocks_of(ROOT / "docs" / page)
    return [b for b in blocks if b.runs and b.language == "python" and "models.load" not in b.code]


@pytest.mark.parametrize(("page", "count"), [("method.md", 4), ("faq.md", 1)])
def test_a_page_prints_its_numbers(page: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)

    for block in arithmetic(page):
        assert run_block(block, names).output == block.output, f"line {block.line}"

    assert len(arithmetic(page)) == count


MEASURED = re.compile(r"(?i)\b(measured|medians?)\b[^.]*\d|\b20\d\d-\d\d-\d\d\b")
COMMAND = re.compile(r"benchmarks/|(?:scripts|tests)/[\w/]+|python -m|\ball commands below\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_section_with_measured_numbers_names_the_command_that_measures(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)

    for section in re.split(r"^#+ .*$", text, flags=re.MULTILINE):
        found = MEASURED.search(section)
        assert found is None or COMMAND.search(section), f"{page.name}: {found[0]!r}"
