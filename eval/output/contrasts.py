"""Differences between arms as pages show them: bars on one scale, a verdict, a sentence.

A difference is significant if its 95 % interval excludes 0 and, where a test adjusted for several
comparisons belongs to it, if that test's p-value is below 0.05, too. Only such a difference is
coloured, and a word states its direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, isnan, log10, nan
from typing import Final

from eval.stats.intervals import NONE, Interval

LEVEL: Final = 0.05
STEPS: Final = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # ends of scales, times a power of ten
BETTER, WORSE, DIFFERS = "better", "worse", "differs"  # classes in page.css
LOWER_HIGHER: Final = ("lower", "higher")
NOT_SIGNIFICANT: Final = "n.s."
NO_INTERVAL: Final = "no interval"
MANY: Final = 4  # more findings than this are summed up, one sentence for each verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The difference of two arms in one number.

    Attributes:
        name: What is compared.
        found: The difference with its interval, in the unit.
        unit: A plural such as "points", or the number's name; those of one unit share a scale.
        words: What a significant difference below 0, and above 0, is called.
        p_value: Of a test that decides together with the interval; None or nan for no test.
        detail: Shown below the verdict.
        digits: Decimal places of the value and of the interval's ends.
        limit: The scale reaches from -limit to +limit.
    """

    name: str
    found: Interval
    unit: str
    words: tuple[str, str] = LOWER_HIGHER
    p_value: float | None = None
    detail: str = ""
    digits: tuple[int, int] = (1, 1)
    limit: float = nan

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and the test, if there is one, agrees."""
        excludes = self.found.low > 0 or self.found.high < 0
        tested = self.p_value is not None and not isnan(self.p_value)
        return excludes and (not tested or (self.p_value or 0) < LEVEL)

    @property
    def verdict(self) -> str:
        """The direction of a significant difference, else why none is claimed."""
        if isnan(self.found.value):
            return NONE
        if isnan(self.found.low):
            return NO_INTERVAL
        return self._word if self.is_significant else NOT_SIGNIFICANT

    @property
    def kind(self) -> str:
        """Class of the row; empty unless the difference is significant."""
        if not self.is_significant:
            return ""
        return self._word if self._word in (BETTER, WORSE) else DIFFERS

    @property
    def value(self) -> str:
        """The difference as text."""
        return NONE if isnan(self.found.value) else signed(self.found.value, self.digits[0])

    @property
    def value_in_unit(self) -> str:
        """The difference as text with its unit."""
        is_count = self.unit.endswith("s") and self.value != NONE
        return f"{self.value} {self.unit}" if is_count else self.value

    @property
    def ends(self) -> str:
        """The interval as text; empty without one."""
        if isnan(self.found.low):
            return ""
        return " to ".join(signed(end, self.digits[1]) for end in (self.found.low, self.found.high))

    @property
    def point(self) -> float | None:
        """Where the value is on the scale, in percent of its width."""
        return None if isnan(self.found.value) else self._position(self.found.value)

    @property
    def left(self) -> float | None:
        """Where the interval begins on the scale, in percent of its width."""
        return None if isnan(self.found.low) else self._position(self.found.low)

    @property
    def width(self) -> float | None:
        """Width of the interval, in percent of the scale's."""
        if isnan(self.found.low):
            return None
        return round(self._position(self.found.high) - self._position(self.found.low), 2)

    @property
    def _word(self) -> str:
        return self.words[0 if self.found.value < 0 else 1]

    def _position(self, number: float) -> float:
        return round(50 + 50 * number / self.limit, 2)


@dataclass(frozen=True, slots=True)
class ContrastGroup:
    """Contrasts that belong together, such as all arms in one metric."""

    title: str
    rows: Sequence[Contrast]
    about: str = ""


@dataclass(frozen=True, slots=True)
class ContrastTable:
    """Groups of contrasts; their bars have one scale for each unit.

    Attributes:
        first: Title of the first column.
        pair: Title of the differences.
        groups: The contrasts; `contrast_table` sets their limits.
        scales: Each unit's scale, such as "points: -5 to +5".
    """

    first: str
    pair: str
    groups: Sequence[ContrastGroup]
    scales: Sequence[str]

    @property
    def is_flat(self) -> bool:
        """Whether each group has one row."""
        return all(len(group.rows) == 1 for group in self.groups)


def contrast_table(first: str, pair: str, groups: Iterable[ContrastGroup]) -> ContrastTable:
    """Return contrasts with the scales of their bars; groups without rows are left out.

    Args:
        first: Title of the first column.
        pair: What is subtracted from what.
        groups: Contrasts without limits.
    """
    found = [group for group in groups if group.rows]
    ends: dict[str, list[float]] = {}
    for row in (row for group in found for row in group.rows):
        values = (row.found.value, row.found.low, row.found.high)
        ends.setdefault(row.unit, []).extend(abs(end) for end in values if not isnan(end))
    limits = {unit: _round_up(max(of, default=0.0)) for unit, of in ends.items()}
    placed = [
        replace(group, rows=[replace(row, limit=limits[row.unit]) for row in group.rows])
        for group in found
    ]
    scales = [f"{unit}: -{limit:g} to +{limit:g}" for unit, limit in limits.items()]
    return ContrastTable(first, pair, placed, scales)


def scaled(found: Interval, factor: float) -> Interval:
    """Return an interval in another unit."""
    return Interval(factor * found.value, factor * found.low, factor * found.high, found.wilson)


def signed(number: float, digits: int) -> str:
    """Return a number with its sign; what rounds to 0 is +0."""
    return f"{round(number, digits) + 0.0:+.{digits}f}"


def finding(
    contrast: Contrast,
    claim: str,
    no_claim: str,
    values: str,
    test: str = "",
    pair: str = "",
) -> str:
    """Return a difference as a sentence: a claim if it is significant, else that there is none.

    Args:
        contrast: The difference.
        claim: Such as "eah is more accurate".
        no_claim: Such as "No difference in accuracy can be claimed between eah and baseline".
        values: The two numbers, such as "6.10 against 5.40".
        test: Such as "sign test p = 0.02".
        pair: What is subtracted, such as "eah minus baseline", where the claim leaves it open.
    """
    interval = f"95 % interval {contrast.ends}" if contrast.ends else NO_INTERVAL
    inside = "; ".join(filter(None, [pair, interval, test]))
    start = claim if contrast.is_significant else no_claim
    return f"{start}: {values}, difference {contrast.value_in_unit} ({inside})."


def summaries(rows: Sequence[Contrast], what: str, reference: str = "") -> list[str]:
    """Return many differences in one number as sentences, one for each verdict.

    Args:
        rows: The differences.
        what: The number, such as "accuracy".
        reference: The arm that all are compared with; empty if there are several.
    """
    by_verdict: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: not row.is_significant):
        shown = f"{row.name} ({row.value_in_unit})"
        verdict = row.verdict if row.is_significant else ""
        by_verdict.setdefault(verdict, []).append(shown)
    against = f" with {reference}" if reference else ""
    what = what[:1].upper() + what[1:]
    return [
        (f"{what}: {verdict}" if verdict else f"{what}: no difference can be claimed")
        + f" in {len(names)} of {len(rows)} comparisons{against}: {', '.join(names)}."
        for verdict, names in by_verdict.items()
    ]


def terms(rows: Iterable[Contrast]) -> list[tuple[str, str]]:
    """Return what the words in a table of differences mean, those that occur."""
    rows = list(rows)
    verdicts = {row.verdict for row in rows}
    tested = any(row.p_value is not None and not isnan(row.p_value) for row in rows)
    found = [
        ("95 % interval", "if other pictures were drawn many times, 95 % of such intervals would "
         "contain the true difference; computed by bootstrap over the pictures"),
        ("Colour and a filled dot", "mark significant differences: the interval excludes 0"
         + (f", and p, where there is one, is below {LEVEL}" if tested else "")),
    ]  # fmt: skip
    if NOT_SIGNIFICANT in verdicts:
        found.append((NOT_SIGNIFICANT, "not significant: no difference can be claimed"))
    if NO_INTERVAL in verdicts:
        found.append((NO_INTERVAL, "the difference is the same in all pictures, or there is only "
                      "one picture: no difference can be claimed"))  # fmt: skip
    return found


def _round_up(number: float) -> float:
    """Return the next number with few digits; 1 for 0."""
    if number <= 0:
        return 1.0
    power = 10.0 ** floor(log10(number))
    return next(step * power for step in STEPS if step * power >= number)
