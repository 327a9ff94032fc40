"""Compute numbers from ratings: average score, hallucination rate, by type, and between arms.

Only answers with a readable rating count. The benchmark's script counts the others as 0, and its
numbers are reported as well. Pictures are resampled; arms are compared on the questions that are
rated in both.

Axes: `N` pictures, `C` counts: sum of ratings, answers with a hallucination, answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np

from eval.stats import intervals
from eval.stats.intervals import Array, Interval
from eval.stats.permutation import PermutationTest, contributions, sign_flip_test
from eval.tasks.judge.protocols import Unparsed
from eval.tasks.judge.requests import ANSWERED, Outcome
from eval.tasks.judge.scoring import OPEN, READ, UNPARSED
from eval.tasks.mmhal.questions import COUNT, TYPES, Question
from eval.tasks.mmhal.ratings import HIGHEST, NO_HALLUCINATION, read_as_reference, read_rating

BOUNDS: Final = (float(HIGHEST), 1.0)


@dataclass(frozen=True, slots=True)
class Rating:
    """The rating of one answer.

    Attributes:
        state: One of `judge.scoring.STATES`.
        value: From 0 to 6; None without a rating.
        text, reason: The reply, and why there is no rating; empty if there is none.
    """

    state: str
    value: int | None
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of some rated answers.

    Attributes:
        score: Average rating, from 0 to 6.
        rate: Share with a rating below 3.
        count: Number of answers.
    """

    score: Interval
    rate: Interval
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        return {"average_score": self.score.as_dict(), "hallucination_rate": self.rate.as_dict(),
                "n": self.count}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One arm minus another on the questions that are rated in both, with a test of each number."""

    numbers: Numbers
    score_test: PermutationTest
    rate_test: PermutationTest

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for a JSON file."""
        return {
            **self.numbers.as_dict(),
            "average_score_test": self.score_test.as_dict(),
            "hallucination_rate_test": self.rate_test.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class ReferenceNumbers:
    """The numbers that `summarize_gpt_mmhal.py` computes from 96 replies.

    Attributes:
        scores: Score of each reply; 0 if the script finds no score, or several.
        average, rate: Mean score, and share of scores below 3.
        by_type: Mean score by index of the question mod 8.
    """

    scores: list[int]
    average: float
    rate: float
    by_type: list[float]

    def lines(self) -> list[str]:
        """Return the lines that the script prints."""
        return [
            f"Average score: {self.average:.2f}",
            f"Hallucination rate: {self.rate:.2f}",
            "Average score for each question type: "
            + ",".join(str(round(value, 2)) for value in self.by_type),
        ]


def rating_of(outcome: Outcome | None) -> Rating:
    """Return the rating of a final outcome; None is an outcome that is still open."""
    if outcome is None:
        return Rating(OPEN, None, reason="not judged yet")
    text = outcome.text or ""
    if outcome.outcome != ANSWERED:
        return Rating(outcome.outcome, None, text, outcome.reason or "")
    found = read_rating(text)
    if isinstance(found, Unparsed):
        cut = "; the reply was cut at max_output_tokens" * (outcome.finish_reason == "length")
        return Rating(UNPARSED, None, text, found.reason + cut)
    return Rating(READ, found, text)


def has_rating(outcome: Outcome) -> bool:
    """Return whether an outcome has a rating."""
    return rating_of(outcome).value is not None


def numbers(questions: Sequence[Question], ratings: Mapping[int, Rating]) -> Numbers | None:
    """Compute the numbers of the rated questions; None without any."""
    scored = [one for one in questions if _value(ratings, one) is not None]
    if not scored:
        return None
    table = _table(scored, ratings)
    score, rate = intervals.bootstrap_intervals(table, _metrics, highest=BOUNDS)
    return Numbers(score, rate, len(scored))


def difference(
    questions: Sequence[Question], first: Mapping[int, Rating], second: Mapping[int, Rating]
) -> Difference | None:
    """Compute the second arm minus the first; None if no question is rated in both."""
    both = [
        one for one in questions
        if _value(first, one) is not None and _value(second, one) is not None
    ]  # fmt: skip
    if not both:
        return None
    tables = _table(both, first), _table(both, second)
    score, rate = intervals.paired_intervals(*tables, _metrics, highest=BOUNDS)
    score_test, rate_test = (sign_flip_test(row) for row in contributions(*tables, _metrics))
    return Difference(Numbers(score, rate, len(both)), score_test, rate_test)


def reference_numbers(replies: Sequence[str]) -> ReferenceNumbers | None:
    """Compute the numbers of the benchmark's script from replies; None unless there are 96.

    Source: LLaVA-RLHF, `Eval/summarize_gpt_mmhal.py`.
    """
    if len(replies) != COUNT:
        return None
    scores = [read_as_reference(text) for text in replies]
    return ReferenceNumbers(
        scores,
        average=sum(scores) / COUNT,
        rate=sum(score < NO_HALLUCINATION for score in scores) / COUNT,
        by_type=[fmean(scores[at :: len(TYPES)]) for at in range(len(TYPES))],
    )


def count_read_differently(replied: Iterable[Rating]) -> int:
    """Count the replies to which the script gives another score than `read_rating`, or any."""
    return sum(one.value != read_as_reference(one.text) for one in replied)


def kinds_of(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """Return the questions by type: the benchmark's in its order, then others."""
    kinds = dict.fromkeys([*TYPES, *(one.kind for one in questions)])
    found = {kind: [one for one in questions if one.kind == kind] for kind in kinds}
    return {kind: of for kind, of in found.items() if of}


def _value(ratings: Mapping[int, Rating], question: Question) -> int | None:
    found = ratings.get(question.position)
    return None if found is None else found.value


def _table(questions: Sequence[Question], ratings: Mapping[int, Rating]) -> Array:
    """Return the counts of each picture, (N, C)."""
    pictures: dict[str, Array] = {}
    for one in questions:
        value = _value(ratings, one)
        assert value is not None
        row = pictures.setdefault(one.image or f"/{one.position}", np.zeros(3))
        row += (value, value < NO_HALLUCINATION, 1)
    return np.array(list(pictures.values()))


def _metrics(sums: Array) -> Array:
    """Compute average score and hallucination rate from sums of counts, (3, ...) -> (2, ...)."""
    return np.asarray(intervals.ratio(sums[:2], np.broadcast_to(sums[2], sums[:2].shape)))
