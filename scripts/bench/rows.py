"""Rows of measurements and their table: medians, spread, and ratios to the first arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

SIGNIFICANT: Final = 3
NEAR_ONE: Final = 2  # ratios below it have three decimals, since EAH costs a few thousandths


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of one arm over the rounds, and its ratios to the first arm, if meaningful.

    Attributes:
        measured: Title of the measurement, with its shape.
        quantity: Name and unit; empty if the arm was not measured.
        arm: Name of the arm.
        values: One per round; none if the arm failed or was left out.
        ratios: One per round, or none.
        note: What differs in the arm's measurement, or why it was not measured.
    """

    measured: str
    quantity: str
    arm: str
    values: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    note: str = ""


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| measured | quantity | arm | median (min..max) | ratio to the first arm |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        note = row.note.replace("|", "/")
        arm = f"{row.arm} ({note})" if note and row.values else row.arm
        value = spread(row.values) if row.values else note
        ratio = spread_of_ratios(row.ratios) if row.ratios else ""
        lines.append(f"| {row.measured} | {row.quantity} | {arm} | {value} | {ratio} |")
    return "\n".join(lines)


def compare_arms(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return sentences that compare arms with others than the first, round by round.

    Args:
        rows: Rows of one quantity, one per arm.
        pairs: An arm, and the arm that it is compared with.
    """
    values = {row.arm: row.values for row in rows if row.values}
    lines = []
    for arm, base in pairs:
        if arm in values and base in values:
            ratios = [a / b for a, b in zip(values[arm], values[base], strict=True)]
            title = f"{rows[0].measured}, {rows[0].quantity}"
            lines.append(f"{title}: {arm} is {spread_of_ratios(ratios)} times {base}.")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return median and range with three significant digits of the median, or all whole ones."""
    return _spread(values, decimals_of(median(values)))


def spread_of_ratios(ratios: Sequence[float]) -> str:
    """Return median and range of ratios."""
    middle = median(ratios)
    return _spread(ratios, 3 if NEAR_ONE / 4 <= middle < NEAR_ONE else decimals_of(middle))


def decimals_of(value: float) -> int:
    """Return how many decimals show three significant digits of a number."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))


def _spread(values: Sequence[float], decimals: int) -> str:
    low, middle, high = (f"{x:.{decimals}f}" for x in (min(values), median(values), max(values)))
    return f"{middle} ({low}..{high})"
