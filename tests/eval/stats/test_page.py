"""docs/statistics.md names files and functions that exist, and constants as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from eval.stats.association import ARRANGEMENTS
from eval.stats.intervals import FEW, RESAMPLES, SEED
from eval.stats.permutation import EXACT, FLIPS

ROOT = Path(__file__).resolve().parents[3]
PAGE = " ".join((ROOT / "docs/statistics.md").read_text().split())


def test_every_file_that_is_named_exists() -> None:
    paths = set(re.findall(r"`((?:eval|models|tests)/[\w/]+\.py)`", PAGE))

    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_function_is_where_the_page_says() -> None:
    named = re.findall(r"((?:`\w+`(?:, | and )?)+) in `((?:eval|models)/[\w/]+\.py)`", PAGE)

    assert len(named) >= 6
    for functions, path in named:
        tree = ast.parse((ROOT / path).read_text())
        known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert set(re.findall(r"`(\w+)`", functions)) <= known, path


def test_constants_are_those_of_the_code() -> None:
    assert f"`R = {RESAMPLES:,}`" in PAGE
    assert f"up to {EXACT} pictures" in PAGE
    assert f"{FLIPS:,} random patterns with seed {SEED}" in PAGE
    assert f"Up to {ARRANGEMENTS:,} different exchanges" in PAGE
    assert f"{ARRANGEMENTS:,} random ones with seed {SEED}" in PAGE
    assert f"(1 + {ARRANGEMENTS:,})" in PAGE
    assert f"fewer than {FEW} pictures" in PAGE
