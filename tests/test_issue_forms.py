"""The issue forms are valid, ask for the report, and name commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from eah.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TYPES = ("checkboxes", "dropdown", "input", "markdown", "textarea")
BUG, NUMBER, MODEL = (f"{name}.yml" for name in ("bug", "wrong-number", "model-or-data"))


def form_of(name: str) -> dict[str, object]:
    content = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_there_are_three_forms() -> None:
    assert {path.name for path in FORMS} == {BUG, NUMBER, MODEL, "config.yml"}


@pytest.mark.parametrize("name", [BUG, NUMBER, MODEL])
def test_a_form_has_what_issue_forms_must_have(name: str) -> None:
    form = form_of(name)
    body = form["body"]

    assert set(form) == {"name", "description", "labels", "body"}
    assert isinstance(body, list)
    assert all(field["type"] in TYPES and field["attributes"]["label"] for field in body)
    names = [field["id"] for field in body]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w-]+", one) for one in names)


@pytest.mark.parametrize("name", [BUG, NUMBER, MODEL])
def test_a_form_requires_the_report_first(name: str) -> None:
    body = form_of(name)["body"]

    assert isinstance(body, list)
    assert re.search(r"`python -m eah report( RUN_FOLDER)?`", body[0]["attributes"]["description"])
    assert body[0]["validations"] == {"required": True}


def test_forms_and_the_security_page_name_commands_that_exist() -> None:
    for path in (*FORMS, ROOT / "SECURITY.md"):
        named = re.findall(r"python -m eah (\w+)", path.read_text(encoding="utf-8"))
        assert set(named) <= set(COMMANDS), path
    assert "python -m eah report" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
