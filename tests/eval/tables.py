"""Tables in what a command printed: how wide they are, and their cells."""

from __future__ import annotations


def widest_table_line(text: str) -> int:
    """Return the width of the widest line of a table; 0 where there is none."""
    return max((len(line) for line in text.splitlines() if line.startswith("|")), default=0)


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all tables, line by line; headings too, rules not."""
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("| -")
    ]
