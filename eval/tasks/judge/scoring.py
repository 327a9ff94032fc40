"""Compute numbers from judgements: means, differences with intervals, wins, and order flips.

A picture counts if all its judgements can be read, in both orders if both were asked: a single
order would bring back the position bias that the other order cancels. Pictures with two equal texts
are not judged and not counted here: in no mean grade, tie or flip.

Axes: `N` pictures, `C` counts that add up over pictures, as `eval.stats.intervals` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import nan
from statistics import fmean
from typing import Any, Final

import numpy as np

from eval.files.image_ids import ImageId
from eval.stats import intervals
from eval.stats.intervals import Array, Interval, McNemar
from eval.stats.permutation import holm
from eval.tasks.judge.protocols import CRITERIA, Grades, Pair, Unparsed, read_grades
from eval.tasks.judge.requests import ANSWERED, Outcome, Request

# States of a judgement. An "open" one has no final reply yet.
READ, UNPARSED, OPEN = "read", "unparsed", "open"
STATES: Final = (READ, UNPARSED, "refused", "rejected", OPEN)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One reply about one picture.

    Attributes:
        order: Order of the answers in the prompt: "12" or "21".
        state: One of STATES.
        grades: Grades of answer 1 and answer 2, in this order; None if they can't be read.
        text, reason: The reply, and why there are no grades; empty if there is none.
    """

    order: str
    state: str
    grades: Grades | None
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class JudgedPicture:
    """All judgements of one picture, one per order."""

    image_id: ImageId
    judgements: tuple[Judgement, ...]

    @property
    def counts(self) -> bool:
        """Whether all judgements can be read."""
        return all(judgement.grades is not None for judgement in self.judgements)

    def grades(self, criterion: str) -> Pair:
        """Return the mean grades of answer 1 and 2 over the orders."""
        pairs = self._pairs(criterion)
        return fmean(one for one, _ in pairs), fmean(two for _, two in pairs)

    def winners(self, criterion: str) -> list[int]:
        """Return the winner in each order: answer 1, 2, or 0 for a tie."""
        return [winner(pair) for pair in self._pairs(criterion)]

    def _pairs(self, criterion: str) -> list[Pair]:
        return [getattr(judgement.grades, criterion) for judgement in self.judgements]


@dataclass(frozen=True, slots=True)
class Flips:
    """How the winner depends on the order.

    Attributes:
        pictures: Pictures judged in both orders.
        changed: Those whose result differs between the orders: another winner, or a tie in one.
        reversed: Those with opposite winners in the two orders.
    """

    pictures: int
    changed: int
    reversed: int

    @property
    def rate(self) -> float:
        """Share of pictures with a changed result; nan without pictures."""
        return self.changed / self.pictures if self.pictures else nan

    def as_dict(self) -> dict[str, Any]:
        """Return the flips for a JSON file."""
        return {**asdict(self), "rate": self.rate if self.pictures else None}


@dataclass(frozen=True, slots=True)
class Result:
    """The result by one criterion.

    Attributes:
        first, second: Mean grades of the answers.
        difference: Second minus first.
        wins, ties, losses: Pictures where answer 2 has the higher, the same, the lower mean grade.
        sign_test: Sign test of wins against losses, without ties.
        p_holm: The test's p-value, Holm-adjusted for the number of criteria.
        flips: None if only one order was asked.
    """

    first: Interval
    second: Interval
    difference: Interval
    wins: int
    ties: int
    losses: int
    sign_test: McNemar
    p_holm: float
    flips: Flips | None

    def as_dict(self) -> dict[str, Any]:
        """Return the result for a JSON file."""
        return {
            "first": self.first.as_dict(),
            "second": self.second.as_dict(),
            "second_minus_first": self.difference.as_dict(),
            "wins_of_second": self.wins,
            "ties": self.ties,
            "losses_of_second": self.losses,
            "sign_test_p": self.sign_test.p_value,
            "sign_test_p_holm": self.p_holm,
            "flips": self.flips and self.flips.as_dict(),
        }


def read_judgements(
    requests: Sequence[Request], final: Mapping[str, Outcome], protocol: str
) -> list[JudgedPicture]:
    """Read the judgements of each picture from the final outcomes by key."""
    by_id: dict[ImageId, list[Judgement]] = {}
    for request in requests:
        found = _judgement(request, final.get(request.key), protocol)
        by_id.setdefault(request.image_id, []).append(found)
    return [JudgedPicture(image_id, tuple(found)) for image_id, found in by_id.items()]


def results(pictures: Sequence[JudgedPicture]) -> dict[str, Result]:
    """Compute the result by each criterion; empty if no picture counts."""
    counted = [picture for picture in pictures if picture.counts]
    if not counted:
        return {}
    found = {name: _result(counted, name) for name in CRITERIA}
    adjusted = holm([result.p_holm for result in found.values()])
    return {
        name: replace(result, p_holm=p_value)
        for (name, result), p_value in zip(found.items(), adjusted, strict=True)
    }


def states(pictures: Sequence[JudgedPicture]) -> dict[str, int]:
    """Return the number of judgements in each state."""
    all_of = [judgement.state for picture in pictures for judgement in picture.judgements]
    return {state: all_of.count(state) for state in STATES}


def winner(pair: Pair) -> int:
    """Return which of two grades is higher, 1 or 2; 0 for a tie."""
    return 0 if pair[0] == pair[1] else 1 if pair[0] > pair[1] else 2


def _judgement(request: Request, outcome: Outcome | None, protocol: str) -> Judgement:
    order = request.order
    if outcome is None:
        return Judgement(order, OPEN, None, "", "not judged yet")
    text = outcome.text or ""
    if outcome.outcome != ANSWERED:
        return Judgement(order, outcome.outcome, None, text, outcome.reason or "")
    found = read_grades(text, protocol)
    if isinstance(found, Unparsed):
        was_cut = outcome.finish_reason == "length"
        cut = "; the reply was cut at max_output_tokens" if was_cut else ""
        return Judgement(order, UNPARSED, None, text, found.reason + cut)
    return Judgement(order, READ, found if order == "12" else found.swap_answers(), text, "")


def _result(pictures: Sequence[JudgedPicture], criterion: str) -> Result:
    grades = [picture.grades(criterion) for picture in pictures]
    first, second = (np.array([[pair[at], 1.0] for pair in grades]) for at in (0, 1))  # (N, 2)
    won = [winner(pair) for pair in grades]
    (mean_first,), (mean_second,) = (
        intervals.bootstrap_intervals(one, _mean) for one in (first, second)
    )
    (difference,) = intervals.paired_intervals(first, second, _mean)
    # Without ties, McNemar's test is the sign test.
    sign_test = intervals.mcnemar([one == 1 for one in won], [one == 2 for one in won])
    return Result(
        mean_first,
        mean_second,
        difference,
        wins=won.count(2),
        ties=won.count(0),
        losses=won.count(1),
        sign_test=sign_test,
        p_holm=sign_test.p_value,
        flips=_flips(pictures, criterion),
    )


def _flips(pictures: Sequence[JudgedPicture], criterion: str) -> Flips | None:
    by_order = [picture.winners(criterion) for picture in pictures]
    if any(len(winners) < 2 for winners in by_order):
        return None
    changed = [winners for winners in by_order if winners[0] != winners[1]]
    return Flips(len(by_order), len(changed), sum(0 not in winners for winners in changed))


def _mean(sums: Array) -> Array:
    """Compute mean grades from sums of grades and of pictures, shape (2, ...) -> (1, ...)."""
    return np.asarray(intervals.ratio(sums[:1], sums[1:]))
