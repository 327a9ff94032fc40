"""Numbers that pages compute are those that their blocks print, digit by digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import Block, blocks_of
from tests.docs.shell import run_block

ROOT = Path(__file__).resolve().parents[2]


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
