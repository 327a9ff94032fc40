"""The probabilities of yes in print: a table of numbers, a table of differences, what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import isnan
from textwrap import wrap
from typing import Final

from eval.output.table import NONE, WIDTH, fit
from eval.stats.intervals import Interval
from eval.tasks.yes_no.probability import STATISTICS, Probabilities

TITLES: Final = ("AUROC (95 %)", "log-odds (95 %)")
DIGITS: Final = (3, 2)
MEANING: Final = (
    "p(yes): of yes against no at the first token; log-odds: of the right one, mean over answers"
)


def probability_text(found: Probabilities) -> str:
    """Return the tables and what has to be known beside them, at most 100 columns wide."""
    names = list(found.numbers)
    # A benchmark without parts has one of no name.
    parts = any(part for of in found.numbers.values() for part in of)
    rows = [
        [arm, *([part] if parts else []), *_cells(numbers)]
        for arm, of in found.numbers.items()
        for part, numbers in of.items()
    ]
    blocks = [_table("p(yes): arm", rows, names, parts=parts, more=[])]
    rows = [
        [
            f"{one.arm} - {one.reference}",
            *([one.part] if parts else []),
            *_cells(one.numbers, signed=True),
            NONE if one.test is None else f"{one.test.p_value:.2g}",
        ]
        for one in found.differences
    ]
    notes = MEANING
    if rows:
        blocks.append(_table("arm - reference", rows, names, parts=parts, more=["p"]))
        notes += ";\np: do the log-odds differ, sign-flip permutation test over pictures"
    reasons = (wrap(f"note: {note}", WIDTH) for note in found.notes)
    return "\n\n".join([*blocks, "\n".join([notes, *chain.from_iterable(reasons)])])


def _table(
    first: str,
    rows: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    parts: bool,
    more: Sequence[str],
) -> str:
    header = [first, *(["part"] if parts else []), *TITLES, *more]
    return fit(header, rows, names=names, keys=1 + parts)


def _cells(numbers: Mapping[str, Interval], *, signed: bool = False) -> list[str]:
    """Return AUROC and log-odds with their intervals."""
    sign = "+" if signed else ""
    return [
        _cell(numbers[name], f"{sign}.{digits}f", digits)
        for name, digits in zip(STATISTICS, DIGITS, strict=True)
    ]


def _cell(number: Interval, style: str, digits: int) -> str:
    if isnan(number.value):
        return NONE
    # Adding 0.0 makes +0.0 of what would be printed as -0.0.
    value, low, high = (
        format(round(end, digits) + 0.0, style) for end in (number.value, number.low, number.high)
    )
    return value if isnan(number.low) else f"{value} ({low}..{high})"
