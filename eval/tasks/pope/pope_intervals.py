"""How sure POPE's numbers are, and whether a method's differ from the baseline's.

Pictures are resampled, each with all its questions. The question types ask about the same pictures,
so a picture is drawn for all of them at once, and their mean is computed within each resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.stats.intervals import (
    Array,
    Interval,
    McNemar,
    bootstrap_intervals,
    mcnemar,
    paired_intervals,
)
from eval.tasks.pope.scoring import PARSERS, RATIOS, ratios, tally

Row = dict[str, Any]
# By method and question type, or MEAN: metric to interval.
Intervals = Mapping[tuple[str, str], Mapping[str, Interval]]

BASELINE: Final = "baseline"
MEAN: Final = "mean"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a method changes against the baseline on one type of questions, or on their mean.

    Attributes:
        method: The method.
        pope_type: The question type; MEAN for the mean over all of them.
        accuracy: Method's minus baseline's.
        f1: Method's minus baseline's.
        mcnemar: Test on which questions each has right. Under MEAN a question that several types
            ask counts once: every type asks the same questions with the answer yes.
    """

    method: str
    pope_type: str
    accuracy: Interval
    f1: Interval
    mcnemar: McNemar

    def as_dict(self) -> Row:
        """Return the difference for metrics.json."""
        return {
            "method": self.method,
            "baseline": BASELINE,
            "pope_type": self.pope_type,
            "accuracy": self.accuracy.as_dict(),
            "f1": self.f1.as_dict(),
            "mcnemar": self.mcnemar.as_dict(),
        }

    def sentence(self) -> str:
        """Return the difference as a line of text, in percentage points."""
        questions = "different questions" if self.pope_type == MEAN else "questions"
        return (
            f"{self.method} - {BASELINE}, {self.pope_type}, with 95 % intervals: "
            f"accuracy {self.accuracy.points(2)}, F1 {self.f1.points(2)}; "
            f"McNemar p = {self.mcnemar.p_value:.2g} "
            f"({self.mcnemar.gained} {questions} gained, {self.mcnemar.lost} lost)"
        )


def intervals_of(rows: Sequence[Row], parser: str) -> Intervals:
    """Return the interval of each ratio, by method and question type.

    If there are several types, MEAN is one more: the mean over them.
    """
    types = _types(rows)
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    for method, mine in _by_method(rows).items():
        computed = bootstrap_intervals(_counts(mine, types, parser), _by_type_and_mean)
        for kind, intervals in _named(computed, types).items():
            found[method, kind] = intervals
    return found


def differences_of(rows: Sequence[Row], parser: str) -> list[Difference]:
    """Compare each other method with the baseline; without a baseline there is nothing to say."""
    types, arms = _types(rows), _by_method(rows)
    if BASELINE not in arms:
        return []
    baseline = arms.pop(BASELINE)
    first = _counts(baseline, types, parser)
    found = []
    for method, mine in arms.items():
        computed = paired_intervals(first, _counts(mine, types, parser), _by_type_and_mean)
        for kind, intervals in _named(computed, types).items():
            before, after = _right(baseline, kind, parser), _right(mine, kind, parser)
            test = mcnemar(list(before.values()), [after[asked] for asked in before])
            found.append(Difference(method, kind, intervals["accuracy"], intervals["f1"], test))
    return found


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = {}
    for row in rows:
        arms.setdefault(row["method"], []).append(row)
    return arms


def _types(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["pope_type"] for row in rows))


def _counts(rows: Sequence[Row], types: Sequence[str], parser: str) -> NDArray[np.int64]:
    """Return one method's counts per picture, in the order of the pictures' names.

    Shape (pictures, 7 * types), the counts of `tally` as the slower axis.
    """
    predictions = [PARSERS[parser](row["answer"]) for row in rows]
    each = tally(predictions, [row["label"] for row in rows])  # (questions, 7)
    pictures, picture = np.unique([row["image"] for row in rows], return_inverse=True)
    kind = np.array([types.index(row["pope_type"]) for row in rows])
    counts = np.zeros((len(pictures) * len(types), 7), dtype=np.int64)
    np.add.at(counts, picture * len(types) + kind, each)
    by_picture = counts.reshape(len(pictures), len(types), 7)
    return by_picture.swapaxes(1, 2).reshape(len(pictures), -1)


def _by_type_and_mean(sums: Array) -> Array:
    """Return each ratio by type, then its mean: (7 * types, ...) -> (6 * (types + 1), ...)."""
    by_type = ratios(sums.reshape(7, -1, *sums.shape[1:]))  # (6, types, ...)
    mean = by_type.mean(axis=1, keepdims=True)
    return np.concatenate([by_type, mean], axis=1).reshape(-1, *sums.shape[1:])


def _named(computed: Sequence[Interval], types: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Return what `_by_type_and_mean` gave, by type and name; one type has no mean."""
    kinds = [*types, MEAN] if len(types) > 1 else types
    return {
        kind: {name: computed[i * (len(types) + 1) + k] for i, name in enumerate(RATIOS)}
        for k, kind in enumerate(kinds)
    }


def _right(rows: Sequence[Row], kind: str, parser: str) -> dict[tuple[str, str], bool]:
    """Return whether each question is answered rightly, by picture and text; MEAN takes all."""
    return {
        (row["image"], row["question"]): PARSERS[parser](row["answer"]) == row["label"]
        for row in rows
        if kind in (row["pope_type"], MEAN)
    }
