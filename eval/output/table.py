"""Tables on standard output: Markdown, aligned for a terminal and as wide as it at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eval.stats.intervals import NONE

WIDTH: Final = 100
SHORT: Final = 4  # Names up to this length are never abbreviated: "[12]" has the same length.


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with columns aligned for a terminal: text left, numbers right."""
    # Markdown needs a dash before the colon.
    widths = [max(2, *map(len, column)) for column in zip(header, *rows, strict=True)]
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = ["-" * (width - 1) + ":" if right else "-" * width
            for width, right in zip(widths, numeric, strict=True)]  # fmt: skip
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(_cells(line, widths, numeric)) + " |" for line in lines)


def fit(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int = WIDTH,
    *,
    names: Sequence[str] = (),
    keys: int = 1,
) -> str:
    """Return a table that is at most `width` characters wide, without leaving anything out.

    If names in the first column make it too wide, they are abbreviated as [1], [2], ... and listed
    below the table. If that is not enough, the remaining columns follow in further tables, which
    repeat the key columns; names are then kept, unless that takes more tables.

    Args:
        header: Titles of the columns.
        rows: At least one row of cells.
        width: Width of the terminal in characters.
        names: Names of the first column in the order of their numbers, so that several tables can
            share them; if empty, the order of the rows.
        keys: Number of leading columns that identify a row.
    """
    tables = _split(header, rows, width, keys)
    excess = max(_width(render(header, rows)) - width, 0)
    if not excess:
        return tables[0]
    room = max(map(len, _first(rows))) - excess  # for the first column
    known = dict.fromkeys([*names, *_first(rows)])
    number = {name: f"[{at}]" for at, name in enumerate(known, 1) if len(name) > max(room, SHORT)}
    short = [[number.get(row[0], row[0]), *row[1:]] for row in rows]
    if all(row[0].startswith("[") for row in short):
        header = ["#", *header[1:]]
    numbered = _split(header, short, width, keys)
    if (_excess(numbered, width), len(numbered)) >= (_excess(tables, width), len(tables)):
        return "\n\n".join(tables)
    legend = [f"{number[name]} {name}" for name in number if name in _first(rows)]
    return "\n\n".join([*numbered, "\n".join(legend)])


def _split(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, keys: int
) -> list[str]:
    """Return as few tables as possible that show all columns at that width, each column whole."""
    tables: list[str] = []
    start = keys
    while start < len(header):
        for stop in range(len(header), start, -1):
            found = render([*header[:keys], *header[start:stop]],
                           [[*row[:keys], *row[start:stop]] for row in rows])  # fmt: skip
            if _width(found) <= width:
                break
        tables.append(found)
        start = stop
    return tables or [render(header, rows)]


def _excess(tables: Sequence[str], width: int) -> int:
    """Return by how many characters the widest table exceeds the width."""
    return max(max(map(_width, tables)) - width, 0)


def _first(rows: Sequence[Sequence[str]]) -> list[str]:
    return [row[0] for row in rows]


def _width(table: str) -> int:
    return len(table.partition("\n")[0])


def _cells(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(line, widths, numeric, strict=True)
    ]


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, possibly with brackets, or marks a missing number."""
    try:
        float(cell.split(" (")[0])
    except ValueError:
        return cell in ("", NONE)
    return True
