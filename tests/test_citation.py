"""CITATION.cff names this version and the paper completely."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import eah

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_version_is_the_packages_own(citation: dict[str, Any]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    source = re.search(r'^\[tool\.hatch\.version\]\npath = "(.+)"$', project, re.MULTILINE)
    assert 'dynamic = ["version"]' in project
    assert source is not None

    package = re.findall(r'^__version__ = "(.+)"$', (ROOT / source[1]).read_text(), re.MULTILINE)

    assert package == [eah.__version__] == [citation["version"]]
    assert isinstance(citation["date-released"], datetime.date)


def test_the_paper_has_its_doi_pages_and_conference(citation: dict[str, Any]) -> None:
    (paper,) = citation["references"]

    assert paper["type"] == "conference-paper"
    assert paper["doi"] == "10.18653/v1/2025.emnlp-main.174"
    assert (paper["start"], paper["end"], paper["year"]) == (3512, 3534, 2025)
    assert paper["conference"] == {"name": "EMNLP 2025"}
    assert "Empirical Methods in Natural Language Processing" in paper["collection-title"]
