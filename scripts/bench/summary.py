"""Summarize the files in benchmarks/ in one table of benchmarks/README.md.

    python scripts/bench/summary.py

Run it after adding a file; a test compares the page with the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.writing import write_atomically
from models.settings import ROOT
from scripts.bench.rows import decimals_of

FOLDER: Final = ROOT / "benchmarks"
BEGIN: Final = "<!-- table: python scripts/bench/summary.py -->"
END: Final = "<!-- end of the table -->"
ARMS: Final = (("baseline", "plain"), ("EAH", "eah"), ("released way", "released"))
HEADER: Final = ("device", "measured", "quantity", "baseline", "EAH", "released way")
COMMIT: Final = 7  # characters
COUNTS: Final = ("forward passes per token", "rows per pass")  # independent of the machine


def summary(folder: Path) -> str:
    """Return the table of all files in a folder: medians, and ratios to the baseline.

    Args:
        folder: Folder with files from `costs.py --json`.
    Raises:
        EvaluationError: If a file is not one of these.
    """
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            lines += _lines(content, path.with_suffix(".md").name)
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{path} is not a file of costs.py --json ({type(error).__name__}: {error}); "
                "measure it again, or remove it"
            ) from error
    return "\n".join(lines)


def with_table(page: str, table: str) -> str:
    """Return a page with its table replaced.

    Raises:
        EvaluationError: If it lacks the table's markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise EvaluationError(f"the page lacks {BEGIN} or {END}, around the table; add both")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _lines(content: Mapping[str, Any], file: str) -> list[str]:
    around = content["environment"]
    machine = f"[{around['device']}]({file}), {around['commit'][:COMMIT]}"
    if not content.get("finished", True):
        machine += ", not finished"
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in content["rows"]:
        groups.setdefault((row["measured"], row["quantity"]), {})[row["arm"]] = row
    lines = []
    for (measured, quantity), by_arm in groups.items():
        cells = [_cell(by_arm, names) for names in ARMS]
        if quantity not in COUNTS and cells[0] and cells[1]:
            lines.append(f"| {machine} | {measured} | {quantity} | {' | '.join(cells)} |")
    return lines


def _cell(by_arm: Mapping[str, dict[str, Any]], names: tuple[str, ...]) -> str:
    """Return the median of an arm, and of its ratios where it is not the first."""
    found = [by_arm[name] for name in names if name in by_arm]
    if not found or not found[0]["values"] or None in found[0]["values"]:
        return ""
    (row,) = found
    middle = median(row["values"])
    shown = f"{middle:.{decimals_of(middle)}f}"
    said = [row["note"]] if row.get("note") else []
    if row["arm"] not in ARMS[0] and row["ratios"]:
        said.insert(0, f"{median(row['ratios']):.2f}")
    return f"{shown} ({', '.join(said)})" if said else shown


def run(arguments: Sequence[str] | None = None) -> None:
    """Write the table into the page."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args(arguments)
    page = FOLDER / "README.md"
    text = with_table(page.read_text(encoding="utf-8"), summary(FOLDER))
    write_atomically(page, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("summary", lambda: run(arguments), interrupted="the page is unchanged")


if __name__ == "__main__":
    sys.exit(main())
