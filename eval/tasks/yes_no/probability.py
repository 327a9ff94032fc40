"""Compute AUROC and log-odds of the probabilities of yes, by arm and part.

A parsed answer changes only if its probability crosses one half. These numbers also show smaller
effects.

AUROC is computed for p_yes and the label. The log-odds of the right answer are log(p / (1 - p)),
negated if the label is no; the mean over the answers of a part is reported. A total is the mean
over its parts.

Axes: `N` pictures, `R` resamples, `A` arms, `D` differences, `K` parts and totals, `S` statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from eval.files.answers import Answer
from eval.stats.intervals import Array, Interval, bootstrap_intervals
from eval.stats.permutation import PermutationTest, holm, sign_flip_test
from eval.tasks.yes_no.part_scores import STATISTICS, PartScores, part_scores

HIGHEST: Final = (1.0, None)  # log-odds have no bounds


@dataclass(frozen=True, slots=True)
class Probabilities:
    """The numbers of some arms.

    Attributes:
        primary: The part or total in which arms are compared first.
        numbers: AUROC and log-odds by arm and part or total; nan if undefined.
        differences: Differences of each arm to its references.
        notes: Reasons why numbers are missing, one sentence each.
    """

    primary: str
    numbers: dict[str, dict[str, dict[str, Interval]]]
    differences: list[ProbabilityDifference]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file."""
        return {
            "primary": self.primary,
            "arms": {
                arm: {kind: _as_dicts(of) for kind, of in kinds.items()}
                for arm, kinds in self.numbers.items()
            },
            "differences": [one.as_dict() for one in self.differences],
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class ProbabilityDifference:
    """An arm minus its reference on a part or total.

    Attributes:
        arm: The arm.
        reference: The arm that it is compared with.
        part: The part or total.
        numbers: Differences of AUROC and log-odds.
        test: Test of the log-odds.
        p_holm: Its p-value, Holm-adjusted for all primary comparisons; None for others.
    """

    arm: str
    reference: str
    part: str
    numbers: dict[str, Interval]
    test: PermutationTest
    p_holm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for a JSON file."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "part": self.part,
            **_as_dicts(self.numbers),
            "permutation_test": self.test.as_dict() | self._adjusted(),
        }

    def _adjusted(self) -> dict[str, float | None]:
        if self.p_holm is None:
            return {}
        return {"p_holm": None if np.isnan(self.p_holm) else self.p_holm}


def probabilities(
    arms: Mapping[str, Sequence[Answer]],
    references: Mapping[str, Sequence[str]],
    totals: Mapping[str, Sequence[str]],
) -> Probabilities | None:
    """Compute AUROC, log-odds and their paired differences.

    Args:
        arms: Answers by arm, all to the same questions.
        references: The arms that each arm is compared with.
        totals: Names of means over parts, and their parts.
    Returns:
        The numbers; None if no answer has a probability.
    """
    if not any(answer.p_yes is not None for answers in arms.values() for answer in answers):
        return None
    some = next(iter(arms.values()))
    names = sorted({answer.item.unit for answer in some})
    parts = list(dict.fromkeys(answer.item.part for answer in some))
    members = {**{part: [part] for part in parts}, **totals}
    shown = {
        kind: len({a.item.unit for a in some if a.item.part in of}) for kind, of in members.items()
    }
    primary = next(iter(totals), parts[0])
    tables = {
        arm: {
            part: part_scores([a for a in answers if a.item.part == part], names) for part in parts
        }
        for arm, answers in arms.items()
    }
    pairs = [(arm, other) for arm, others in references.items() for other in others]

    def statistics(weights: Array) -> Array:
        """Compute all statistics from weights of pictures, (N, ...) -> ((A + D) K S, ...)."""
        rows = weights.reshape(len(names), -1).T  # (R, N)
        of_arms = {arm: _statistics(of, members.values(), rows) for arm, of in tables.items()}
        found = [*of_arms.values(), *(of_arms[arm] - of_arms[other] for arm, other in pairs)]
        return np.concatenate(found).reshape(-1, *weights.shape[1:])

    # A resample is the number of draws of each picture: the sum over drawn rows of the identity.
    intervals = iter(
        bootstrap_intervals(
            np.eye(len(names)),
            statistics,
            highest=HIGHEST * (len(members) * (len(arms) + len(pairs))),
            pictures=[shown[k] for k in members for _ in STATISTICS] * (len(arms) + len(pairs)),
        )
    )

    def take_intervals() -> dict[str, dict[str, Interval]]:
        return {kind: {name: next(intervals) for name in STATISTICS} for kind in members}

    numbers = {arm: take_intervals() for arm in arms}
    differences = [
        ProbabilityDifference(
            arm,
            other,
            kind,
            _make_symmetric(of),
            _test(tables[arm], tables[other], members[kind], len(names)),
        )
        for arm, other in pairs
        for kind, of in take_intervals().items()
    ]
    notes = list(_notes(arms, numbers))
    return Probabilities(primary, numbers, _adjust_p_values(differences, primary), notes)


def _adjust_p_values(
    differences: Sequence[ProbabilityDifference], primary: str
) -> list[ProbabilityDifference]:
    """Return the differences with Holm-adjusted p-values of the primary comparisons."""
    p_values = iter(holm([d.test.p_value for d in differences if d.part == primary]))
    return [replace(d, p_holm=next(p_values)) if d.part == primary else d for d in differences]


def _statistics(
    tables: Mapping[str, PartScores], kinds: Iterable[Sequence[str]], weights: Array
) -> Array:
    """Compute the statistics of an arm's parts and totals under weights, (R, N) -> (K S, R)."""
    by_part = {part: table.statistics(weights) for part, table in tables.items()}
    means = [np.mean([by_part[part] for part in of], axis=0) for of in kinds]
    return np.concatenate(means)


def _make_symmetric(numbers: Mapping[str, Interval]) -> dict[str, Interval]:
    """Return differences with symmetric Wilson intervals: a next picture may differ either way."""
    return {
        name: replace(x, low=-x.high) if x.wilson and x.value == 0 else x
        for name, x in numbers.items()
    }


def _test(
    first: Mapping[str, PartScores],
    second: Mapping[str, PartScores],
    parts: Sequence[str],
    pictures: int,
) -> PermutationTest:
    """Test the difference of the log-odds, from each picture's contribution to the mean."""
    added = np.zeros(pictures)
    for part in parts:
        one, other = first[part], second[part]
        share = len(parts) * one.answers.sum()
        added[one.pictures] += (one.log_odds - other.log_odds) / share
    return sign_flip_test(added)


def _notes(
    arms: Mapping[str, Sequence[Answer]],
    numbers: Mapping[str, Mapping[str, Mapping[str, Interval]]],
) -> Iterator[str]:
    """Yield why numbers are missing."""
    for arm, answers in arms.items():
        missing = sum(answer.p_yes is None for answer in answers)
        certain = sum(answer.p_yes in (0, 1) for answer in answers)
        if missing:
            yield (
                f"{arm}: no numbers, since {missing} of {len(answers)} answers have no p(yes): "
                "older answers lack it, and answers whose first token can be neither yes nor no"
            )
        elif certain:
            yield (
                f"{arm}: no log-odds, since {certain} of {len(answers)} answers have a p(yes) of 0 "
                "or 1: the method rules out yes or no; equal values are ties in AUROC"
            )
    one_sided = {
        kind
        for arm, kinds in numbers.items()
        for kind, of in kinds.items()
        if np.isnan(of["auroc"].value) and all(a.p_yes is not None for a in arms[arm])
    }
    if one_sided:
        which = ", ".join(sorted(one_sided)).strip(", ")
        yield f"no AUROC{f' for {which}' if which else ''}: all labels of a part are the same"


def _as_dicts(numbers: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: number.as_dict() for name, number in numbers.items()}
