"""Print the numbers of the probabilities of yes, their primary differences and explanations."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import isnan
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from eval.output.table import WIDTH, fit
from eval.stats.intervals import NONE, Interval
from eval.tasks.yes_no.part_scores import STATISTICS

if TYPE_CHECKING:
    from eval.tasks.yes_no.probability import Probabilities, ProbabilityDifference

TITLES: Final = ("AUROC (95 %)", "log-odds (95 %)")
DIGITS: Final = (3, 2)
MEANING: Final = (
    "p(yes): probability of yes versus no at the first token; log-odds: mean log-odds of the "
    "right answer"
)


def probability_text(found: Probabilities, resampled: str = "picture") -> str:
    """Return the tables and their explanations, at most 100 characters wide.

    Args:
        found: The numbers.
        resampled: Word for the unit that tests flip.
    """
    arms = list(found.numbers)
    # A benchmark without parts has one part with an empty name.
    parts = ["part"] if any(part for of in found.numbers.values() for part in of) else []
    rows = [
        [arm, *([part] if parts else []), *_cells(numbers)]
        for arm, of in found.numbers.items()
        for part, numbers in of.items()
    ]
    header = ["arm, by p(yes)", *parts, *TITLES]
    blocks = [fit(header, rows, names=arms, keys=1 + len(parts))]
    compared = [one for one in found.differences if one.part == found.primary]
    if compared:
        where = f"arm - reference, {found.primary}" if found.primary else "arm - reference"
        rows = [
            [f"{one.arm} - {one.reference}", *_cells(one.numbers, signed=True), _p(one)]
            for one in compared
        ]
        blocks.append(fit([where, *TITLES, "p"], rows))
    tested = sum(not isnan(one.test.p_value) for one in compared)
    return "\n\n".join([*blocks, "\n".join(_notes(found, tested, resampled))])


def _notes(found: Probabilities, tested: int, resampled: str) -> list[str]:
    lines = [MEANING]
    if tested:
        adjusted = f", Holm-adjusted for {tested} comparisons" if tested > 1 else ""
        lines.append(f"p: sign-flip permutation test of the log-odds over {resampled}s{adjusted}")
    every = [of for kinds in found.numbers.values() for of in kinds.values()]
    every += [one.numbers for one in found.differences if one.part == found.primary]
    if any(number.wilson for numbers in every for number in numbers.values()):
        lines.append("where all resamples have the same AUROC, the interval is Wilson's")
    return [*lines, *chain.from_iterable(wrap(f"note: {note}", WIDTH) for note in found.notes)]


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
    # Adding 0.0 turns -0.0 into +0.0.
    value, low, high = (
        format(round(end, digits) + 0.0, style) for end in (number.value, number.low, number.high)
    )
    return value if isnan(number.low) else f"{value} ({low}..{high})"


def _p(difference: ProbabilityDifference) -> str:
    p_value = difference.p_holm
    return NONE if p_value is None or isnan(p_value) else f"{p_value:.2g}"
