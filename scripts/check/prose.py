"""Find stilted phrases in the README, docs, help texts, messages, docstrings and comments.

    python scripts/check/prose.py [FILE ...]      (default: the whole project, tests left out)

The phrases and what to write instead are in `scripts/check/prose.yaml`. Prints `file:line` for each
and ends with status 1 if there is one.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = Path(__file__).with_suffix(".yaml")
PACKAGES: Final = ("eah", "models", "eval", "scripts")
FOLDERS: Final = (*PACKAGES, "configs", "docs", "benchmarks", ".github")
SUFFIXES: Final = frozenset((".py", ".md", ".yaml", ".yml", ".sh", ".html", ".js"))
FENCE: Final = re.compile(r"^\s*(```|~~~)")
INLINE_CODE: Final = re.compile(r"`[^`]*`")


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


@dataclass(frozen=True, slots=True)
class Text:
    """Prose of a file: its first line's number, and the words."""

    line: int
    words: str


def read_rules(path: Path = RULES) -> Rules:
    """Read the phrases, the function names and the files that are not checked."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Rules(
        tuple(
            Phrase(re.compile(entry["find"], re.IGNORECASE), entry["write"])
            for entry in content["phrases"]
        ),
        frozenset(content["names"]),
        frozenset(content["leave"]),
    )


def python_prose(source: str) -> Iterator[Text]:
    """Yield the strings of more than one word and the blocks of comments of Python code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield Text(node.lineno, node.value)
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != block[-1].start[0] + 1:
            yield _comment(block)
            block = []
        block.append(token)
    if block:
        yield _comment(block)


def _comment(block: Sequence[tokenize.TokenInfo]) -> Text:
    return Text(block[0].start[0], "\n".join(token.string.lstrip("# ") for token in block))


def markdown_prose(source: str) -> Iterator[Text]:
    """Yield the paragraphs of a page, without code."""
    fenced = False
    start, lines = 1, []
    for number, line in enumerate(source.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        if fenced or FENCE.match(line) or not line.strip():
            if lines:
                yield Text(start, INLINE_CODE.sub("`x`", "\n".join(lines)))
            start, lines = number + 1, []
        else:
            lines.append(line)
    if lines:
        yield Text(start, INLINE_CODE.sub("`x`", "\n".join(lines)))


def prose_of(path: Path) -> Iterator[Text]:
    """Yield what people read in a file, by its kind."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_prose(source)
    elif path.suffix == ".md":
        yield from markdown_prose(source)
    else:
        yield Text(1, source)


def named_functions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every function and class of a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name


def findings(path: Path, rules: Rules) -> Iterator[str]:
    """Yield one line of text for each phrase or name of a file that should be rewritten."""
    for text in prose_of(path):
        for phrase in rules.phrases:
            # A phrase may be broken over two lines.
            words = re.sub(r"\n[ \t#>]*", lambda gap: " " * (len(gap[0]) - 1) + "\n", text.words)
            for match in phrase.pattern.finditer(re.sub(r"[ \n]", " ", words)):
                line = text.line + words.count("\n", 0, match.start())
                yield f"{path}:{line}: {match[0]!r}: write {phrase.instead}"
    if path.suffix == ".py":
        for line, name in named_functions(path):
            if name in rules.names:
                yield f"{path}:{line}: the name {name!r} is not a verb; name what it does"


def project_files(rules: Rules) -> list[Path]:
    """Return the files of the project that people read."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    found = {path for path in (*ROOT.glob("*"), *inside) if path.suffix in SUFFIXES}
    names = {path: path.relative_to(ROOT).as_posix() for path in found}
    return sorted(path for path in found if names[path] not in rules.excluded)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what should be rewritten and return 1 if there is something."""
    words = sys.argv[1:] if arguments is None else arguments
    rules = read_rules()
    paths = [Path(word) for word in words] or project_files(rules)
    found = [line for path in paths for line in findings(path, rules)]
    for line in found:
        print(line.replace(f"{ROOT}/", ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
