"""Rounds of measurements, and their table: every arm in every round, medians and spread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Arm = Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of one arm over the rounds, and its ratios to the first arm, if they say much.

    Attributes:
        measured: What was measured, with its shape.
        quantity: Name and unit.
        arm: How it was computed.
        values: One per round.
        ratios: One per round, or none.
    """

    measured: str
    quantity: str
    arm: str
    values: tuple[float, ...]
    ratios: tuple[float, ...]


def interleave(
    measured: str, arms: Mapping[str, Arm], repeats: int, *, warm_up: int = 1
) -> list[Row]:
    """Run every arm in every round, in alternating order.

    Args:
        measured: What the rows are about.
        arms: What runs one round, by name.
        repeats: Number of rounds that count.
        warm_up: Number of rounds before them that do not count.
    """
    rounds: list[dict[str, dict[str, float]]] = []
    for index in range(warm_up + repeats):
        print(f"{measured}: round {index + 1} of {warm_up + repeats}", file=sys.stderr)
        order = list(arms)[:: -1 if index % 2 else 1]
        rounds.append({arm: arms[arm]() for arm in order})
    first, counted = next(iter(arms)), rounds[warm_up:]
    rows: list[Row] = []
    for quantity in counted[0][first]:
        base = [by_arm[first][quantity] for by_arm in counted]
        for arm in arms:
            values = tuple(by_arm[arm][quantity] for by_arm in counted)
            ratios = tuple(value / of for value, of in zip(values, base, strict=True) if of > 0)
            rows.append(Row(measured, quantity, arm, values, ratios))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| measured | quantity | arm | median (min..max) | ratio to the first arm |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        ratio = _spread(row.ratios, 2) if row.ratios else ""
        value = _spread(row.values, 1)
        lines.append(f"| {row.measured} | {row.quantity} | {row.arm} | {value} | {ratio} |")
    return "\n".join(lines)


def compared(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return how arms compare with others than the first, round by round, as sentences.

    Args:
        rows: Rows of one quantity, one per arm.
        pairs: An arm, and the arm that it is compared with.
    """
    values = {row.arm: row.values for row in rows}
    lines = []
    for arm, base in pairs:
        if arm in values and base in values:
            ratios = [a / b for a, b in zip(values[arm], values[base], strict=True)]
            title = f"{rows[0].measured}, {rows[0].quantity}"
            lines.append(f"{title}: {arm} is {_spread(ratios, 2)} times {base}.")
    return lines


def _spread(values: Sequence[float], digits: int) -> str:
    low, mid, high = (f"{x:.{digits}f}" for x in (min(values), median(values), max(values)))
    return f"{mid} ({low}..{high})"
