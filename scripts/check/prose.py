"""Find stilted phrases in the README, docs, help texts, messages, docstrings and comments.

`scripts/check/prose.yaml` lists the phrases with what to write instead, names that a stranger does
not understand, and files that are never checked. Prints one line for each finding. Exit status: 0
without findings, 1 with findings, 2 if a file cannot be read.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from scripts.check.prose_text import paragraphs_of

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("eah", "models", "eval", "scripts", "configs", "docs", "benchmarks", ".github")
SUFFIXES: Final = frozenset((".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".html", ".js"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A pattern that is not plain English, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The contents of `prose.yaml`."""

    phrases: tuple[Phrase, ...]
    names: frozenset[str]
    excluded: frozenset[str]


def read_rules() -> Rules:
    """Read the phrases, the names and the files that are not checked."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return Rules(
        tuple(
            Phrase(re.compile(entry["find"], re.IGNORECASE), entry["write"])
            for entry in content["phrases"]
        ),
        frozenset(content["names"]),
        frozenset(content["leave"]),
    )


def defined_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of the functions, classes and module variables of a Python file.

    Fields and properties name data, which a participle may do: they are left out.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not any("property" in ast.unparse(one) for one in node.decorator_list):
                    yield node.lineno, node.name
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for target in ast.walk(statement):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    yield target.lineno, target.id


def findings(path: Path, rules: Rules) -> list[str]:
    """Return a sentence for each phrase and name of a file that should be rewritten, by line.

    Raises:
        OSError, UnicodeDecodeError, SyntaxError, tokenize.TokenError: If it cannot be read.
    """
    found = []
    for paragraph in paragraphs_of(path):
        for phrase in rules.phrases:
            for match in phrase.pattern.finditer(paragraph.words):
                line = paragraph.line_at(match.start())
                found.append((line, f"{match[0].strip()!r}: write {phrase.instead}"))
    if path.suffix == ".py":
        for line, name in defined_names(path):
            if name in rules.names:
                found.append((line, f"the name {name!r}: name what it does or what it is"))
    return [f"{path}:{line}: {text}" for line, text in sorted(found)]


def project_files() -> list[Path]:
    """Return the files of the project that people read."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return sorted(path for path in (*ROOT.glob("*"), *inside) if path.suffix in SUFFIXES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what should be rewritten and return the exit status."""
    parser = argparse.ArgumentParser(prog="prose", description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", nargs="*", metavar="FILE", type=Path,
        help="files to check; default: the whole project, without tests/",
    )  # fmt: skip
    rules = read_rules()
    excluded = {ROOT / name for name in rules.excluded}
    status = 0
    for path in parser.parse_args(arguments).files or project_files():
        if path.resolve() in excluded:
            continue
        try:
            found = findings(path, rules)
        except (OSError, UnicodeDecodeError, SyntaxError, tokenize.TokenError) as error:
            print(f"prose: error: {path} can't be read: {error}", file=sys.stderr)
            return 2
        for line in found:
            print(line.replace(f"{ROOT}/", ""))
        status = 1 if found else status
    return status


if __name__ == "__main__":
    sys.exit(main())
