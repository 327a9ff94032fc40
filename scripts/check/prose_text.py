"""The text that people read in a file, paragraph by paragraph, with line numbers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

Line = tuple[int, str]  # number from 1, text

FENCE: Final = re.compile(r"[\s>]*(`{3,}|~{3,})(.*)")
INLINE_CODE: Final = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LITERAL: Final = re.compile(r"([a-z]*)('''|\"\"\"|'|\")(.*)\2", re.DOTALL | re.IGNORECASE)
# Python 3.12 splits f-strings into tokens, Python 3.14 template strings too.
OPENERS: Final = frozenset(
    getattr(tokenize, name, -1) for name in ("FSTRING_START", "TSTRING_START")
)  # fmt: skip
CLOSERS: Final = frozenset(
    getattr(tokenize, name, -1) for name in ("FSTRING_END", "TSTRING_END")
)  # fmt: skip


class Paragraph:
    """Words of consecutive lines, with single spaces.

    Args:
        lines: Line numbers and texts. A text that starts a line of the file begins with a space.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.words = ""
        self._starts: list[int] = []
        self._numbers: list[int] = []
        for number, text in lines:
            single = re.sub(r"\s+", " ", text)
            self._starts.append(len(self.words))
            self._numbers.append(number)
            self.words += single.lstrip() if self.words.endswith(" ") else single

    def line_at(self, offset: int) -> int:
        """Return the number of the line with the character of `words` at an offset."""
        return self._numbers[bisect_right(self._starts, offset) - 1]


def paragraphs_of(path: Path) -> Iterator[Paragraph]:
    """Yield the text of a file: of Python strings and comments, of a page all but code.

    Raises:
        OSError, UnicodeDecodeError: If the file cannot be read.
        SyntaxError, tokenize.TokenError: If it is not Python, but its name ends so.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python(source)
    elif path.suffix == ".md":
        yield from _split(_without_code(source))
    else:
        lines = enumerate(source.splitlines(), start=1)
        yield from _split((number, " " + line.lstrip("# \t")) for number, line in lines)


def _split(lines: Iterable[Line]) -> Iterator[Paragraph]:
    """Yield paragraphs, which end at an empty line."""
    block: list[Line] = []
    for number, text in lines:
        if text.strip():
            block.append((number, text))
        elif block:
            yield Paragraph(block)
            block = []
    if block:
        yield Paragraph(block)


def _without_code(source: str) -> Iterator[Line]:
    """Yield the lines of a Markdown page; code blocks are empty, code in a line is `x`."""
    fence, kept = "", []
    for line in source.splitlines():
        mark = FENCE.match(line)
        if fence and mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
            kept.append("")
        elif fence or mark:
            fence = fence or (mark[1] if mark else "")
            kept.append("")
        else:
            kept.append(line)
    # Inline code ends with its paragraph.
    blocks = re.split(r"(\n\s*\n)", "\n".join(kept))
    text = "".join(INLINE_CODE.sub(lambda code: "`x`" + "\n" * code[0].count("\n"), block)
                   for block in blocks)  # fmt: skip
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, " " + line.lstrip("> \t")


def _python(source: str) -> Iterator[Paragraph]:
    """Yield strings of several words, each with those that it is concatenated to, and comments."""
    run: list[Line] = []
    comments: list[tokenize.TokenInfo] = []
    for token, text in _tokens(source):
        if token.type == tokenize.COMMENT:
            is_alone = token.line[: token.start[1]].strip() == ""
            if comments and not (is_alone and token.start[0] == comments[-1].start[0] + 1):
                yield _comment(comments)
                comments = []
            comments.append(token)
        elif text is not None:
            run += _literal(token.start[0], text)
        elif token.type != tokenize.NL:
            yield from _strings(run)
            run = []
    if comments:
        yield _comment(comments)
    for node in ast.walk(ast.parse(source)):  # strings inside the fields of f-strings
        if isinstance(node, ast.FormattedValue):
            for inner in ast.walk(node.value):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield from _strings([(inner.lineno, inner.value)])


def _comment(block: Iterable[tokenize.TokenInfo]) -> Paragraph:
    return Paragraph((token.start[0], " " + token.string.lstrip("# ")) for token in block)


def _strings(run: list[Line]) -> Iterator[Paragraph]:
    if " " in "".join(text for _, text in run).strip():
        yield from _split(run)


def _tokens(source: str) -> Iterator[tuple[tokenize.TokenInfo, str | None]]:
    """Yield the tokens, each string literal as one, with the source of a literal."""
    rows = source.splitlines(keepends=True)
    opened: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in OPENERS:
            opened.append(token)
        elif token.type in CLOSERS:
            first = opened.pop()
            if not opened:
                (top, left), (bottom, right) = first.start, token.end
                inside = [*rows[top - 1 : bottom - 1], rows[bottom - 1][:right]]
                yield first, "".join(inside)[left:]
        elif not opened:
            yield token, token.string if token.type == tokenize.STRING else None


def _literal(line: int, source: str) -> Iterator[Line]:
    """Yield the lines of a string literal's value, with `x` for the fields of an f-string."""
    match = LITERAL.fullmatch(source)
    if match is None or "b" in match[1].lower():
        return
    body = match[3]
    if "f" in match[1].lower():
        body = _without_fields(body)
    if "r" not in match[1].lower():
        body = re.sub(r"\\(.)", lambda escape: " " if escape[1] in "nrt" else escape[1], body)
        body = body.replace("\\\n", "\n")
    for at, text in enumerate(body.split("\n")):
        yield line + at, text if at == 0 else " " + text


def _without_fields(body: str) -> str:
    depth, kept = 0, []
    for part in re.findall(r"\{\{|\}\}|[^{}]+|.", body, re.DOTALL):
        if depth == 0 and part in ("{{", "}}"):
            kept.append(part[0])
            continue
        for character in part if part in ("{{", "}}", "{", "}") else ():
            kept += ["x"] if character == "{" and depth == 0 else []
            depth += 1 if character == "{" else -1
        if part[0] not in "{}":
            kept.append(part if depth == 0 else "\n" * part.count("\n"))
    return "".join(kept)
