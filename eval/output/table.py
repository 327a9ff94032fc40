"""The result table on standard output."""

from __future__ import annotations

from collections.abc import Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with columns aligned for a terminal: text left, numbers right."""
    # Markdown wants a dash beside the colon.
    widths = [max(2, *map(len, column)) for column in zip(header, *rows, strict=True)]
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = ["-" * (width - 1) + ":" if right else "-" * width
            for width, right in zip(widths, numeric, strict=True)]  # fmt: skip
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(_cells(line, widths, numeric)) + " |" for line in lines)


def _cells(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(line, widths, numeric, strict=True)
    ]


def _is_number(cell: str) -> bool:
    """Say whether a cell is a number, with or without more in brackets."""
    return cell.split(" (")[0].replace(".", "", 1).replace("-", "", 1).isdigit()
