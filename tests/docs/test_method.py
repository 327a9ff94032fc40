"""The numbers on docs/method.md are those that its blocks print, digit by digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.docs.blocks import blocks_of
from tests.docs.shell import run_block

PAGE = Path(__file__).resolve().parents[2] / "docs/method.md"


def test_the_arithmetic_of_the_page_prints_its_numbers() -> None:
    names: dict[str, Any] = {}
    blocks = [block for block in blocks_of(PAGE) if "models.load" not in block.code and block.runs]

    for block in blocks:
        assert run_block(block, names).output == block.output, f"line {block.line}"

    assert len(blocks) == 4
