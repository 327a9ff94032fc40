"""The code blocks of a page, and whether what it printed is what the page shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```[ ]*\n(?:\s*^```text\n(?P<output>.*?)^```[ ]*$)?",
    re.DOTALL | re.MULTILINE,
)
NEEDS = re.compile(r"^# needs: (?P<what>.+)$", re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
HASH = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its line in the page, language, code, and the output that the page shows."""

    line: int
    language: str
    code: str
    output: str | None

    @property
    def needs(self) -> str | None:
        """What the block needs and a test does not have; None for a block that runs."""
        found = NEEDS.match(self.code)
        return found["what"] if found else None

    @property
    def runs(self) -> bool:
        return self.language in ("bash", "python") and self.needs is None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start()) + 1, found["language"], found["code"],
              found["output"] if found["language"] in ("bash", "python") else None)
        for found in FENCE.finditer(text)
    ]  # fmt: skip


def command_lines(code: str) -> list[str]:
    """Return the commands of a bash block, continued lines joined, comments left out."""
    joined = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]


def masked(line: str) -> str:
    """Return a line of output without what differs between machines: numbers, hashes, widths."""
    line = NUMBER.sub("0", HASH.sub("0", line))
    return re.sub(r"-{3,}", "---", re.sub(r"\s+", " ", line)).strip()


def matches(shown: str, printed: str) -> bool:
    """Return whether a page's output is what was printed; `...` stands for anything."""
    pattern = []
    for line in shown.strip("\n").splitlines():
        if line.strip() == "...":
            pattern.append(r"(?:[^\n]*\n)*?")
        else:
            parts = (re.escape(masked(part)) for part in line.split("..."))
            pattern.append(r"[^\n]*".join(parts) + r"\n")
    text = "".join(masked(line) + "\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch("".join(pattern), text) is not None
