"""docs/errors.md has an entry for every error class, and its messages are those of the software.

What its blocks print is compared by `test_pages.py`.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import FENCE, blocks_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/errors.md"
PACKAGES = ("eah", "models", "eval")
GENERATED = ROOT / "eah/modeling_llama_eah.py"


@cache
def trees() -> tuple[ast.Module, ...]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return tuple(ast.parse(path.read_text("utf-8")) for path in paths if path != GENERATED)


def bases_of_classes() -> dict[str, list[str]]:
    return {
        node.name: [ast.unparse(base) for base in node.bases]
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def error_classes() -> set[str]:
    """Return the public errors: what is named so, or inherits from an error.

    A bare Exception of another name stops a loop inside the software, and no one sees it.
    """
    bases = bases_of_classes()

    def is_error(name: str) -> bool:
        return name.endswith("Error") or any(map(is_error, bases.get(name, [])))

    return {name for name in bases if not name.startswith("_") and is_error(name)}


def sections() -> dict[str, str]:
    """Return the page's sections by the class in their headings."""
    found = re.split(r"^## `(\w+)`$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.split("\n## ")[0] for name, text in zip(found[::2], found[1::2])}  # noqa: B905


def messages() -> str:
    """Return the texts of the sources, what is filled in left out, one line for each."""
    lines = []
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "" for part in node.values)
            lines.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            lines.append(node.value)
    return "\n".join(lines)


def test_classes_are_found_by_what_they_inherit() -> None:
    assert {"EAHError", "SwapError", "ModelError", "MethodError", "NltkMissing"} <= error_classes()


@pytest.mark.parametrize("name", sorted(error_classes()))
def test_every_class_has_an_entry_with_symptom_cause_and_remedy(name: str) -> None:
    section = sections()[name]
    shown = [found["output"] for found in FENCE.finditer(section) if found["output"]]

    assert shown, "no symptom"
    for output in shown:
        assert re.search(rf"^{name}: |^[\w.]+: error: |^\w+Error - ", output, re.MULTILINE), output
    if name != "EAHError":
        words = (r"Cause:\s", r"Remedy:\s") if "| Message contains |" not in section else ()
        assert all(re.search(word, section) for word in words)


def test_there_are_entries_of_classes_that_exist_alone() -> None:
    assert set(sections()) == error_classes()


def test_every_block_shows_what_it_prints() -> None:
    hidden = [block.line for block in blocks_of(PAGE) if block.runs and block.output is None]

    assert hidden == []


def test_messages_that_are_only_quoted_are_in_the_sources() -> None:
    texts = messages()
    table = PAGE.read_text("utf-8").split("| Message contains |")[1].split("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)

    assert len(quoted) > 4
    assert [text for text in quoted if text not in texts] == []


def test_the_table_of_classes_names_what_they_inherit() -> None:
    table = PAGE.read_text("utf-8").split("| class |")[1].split("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    bases = bases_of_classes()

    for names, _, of in rows:
        wanted = re.findall(r"`(\w+)`", of)
        for name in re.findall(r"`(\w+)`", names):
            inherited = bases[name] if name != "NltkMissing" else bases["EvaluationError"]
            assert inherited == wanted, name
