"""Compare two arms on the same pictures: differences, a test, and whether length explains them.

A difference is significant if its 95 % interval excludes 0. This rule applies to both CHAIR metrics
and to the cut baseline. McNemar's p-value is reported as well, but decides nothing here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from statistics import fmean
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Caption
from eval.stats.intervals import Interval, McNemar, mcnemar, paired_intervals
from eval.stats.permutation import holm
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.scoring import (
    HIGHEST,
    METRICS,
    ScoredArm,
    ScoredCaption,
    cut_words,
    in_json,
    in_percent,
    metrics,
    score,
)

# The test counts captions without hallucinated objects: those that the method gains and loses.
DIFFERENCES: Final = ("method", "metric", "difference (95 %)", "McNemar p (gained, lost)")


@dataclass(frozen=True, slots=True)
class CutBaseline:
    """The baseline's captions, cut to the mean `Len` of the method's captions.

    Attributes:
        max_words: Space-separated words that each caption keeps at most.
        values: Metrics of the cut captions.
        differences: Method minus cut baseline, with 95 % intervals.
    """

    max_words: int
    values: dict[str, float]
    differences: dict[str, Interval]

    def explains(self, metric: str) -> bool:
        """Return whether the method is not significantly better than the baseline at its length.

        If the baseline mentions no object at that length (n/a), no gain is shown.
        """
        return not is_gain(self.differences[metric])


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method compared with the baseline, picture by picture.

    Attributes:
        method: Name of the arm.
        baseline: Name of the baseline arm.
        differences: Method minus baseline, with 95 % intervals, by metric.
        test: McNemar's test on captions without a hallucinated object.
        cut: The baseline at the method's length; None unless the method is significantly better
            and shorter.
        p_holm: The test's p-value, Holm-adjusted for the number of compared arms.
    """

    method: str
    baseline: str
    differences: dict[str, Interval]
    test: McNemar
    cut: CutBaseline | None
    p_holm: float

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for the output file."""
        return {
            "method": self.method,
            "baseline": self.baseline,
            "differences": as_dicts(self.differences),
            "mcnemar": {**self.test.as_dict(), "p_holm": self.p_holm},
            "cut_baseline": None
            if self.cut is None
            else {
                "max_words": self.cut.max_words,
                "metrics": in_json(self.cut.values),
                "differences": as_dicts(self.cut.differences),
            },
        }

    def gains(self) -> list[str]:
        """Return the CHAIR metrics in which the method is better."""
        return [name for name in ("CHAIRs", "CHAIRi") if self.differences[name].value < 0]

    def rows(self) -> list[list[str]]:
        """Return the rows of a table with the columns `DIFFERENCES`, in percent; Len in words."""
        test = f"{self.p_holm:.2g} ({self.test.gained}, {self.test.lost})"
        return [
            [self.method, name, found.points(), test if name == "CHAIRs" else ""]
            for name, found in self.differences.items()
        ]

    def length_sentence(self) -> str | None:
        """Say which gains are not significant, and whether length alone explains the others.

        None without gains, or if all gains are significant and the method is not shorter.
        """
        sure = [name for name in self.gains() if is_gain(self.differences[name])]
        unsure = [name for name in self.gains() if name not in sure]
        parts = []
        if unsure:
            parts.append(
                f"{self.method}'s gain in {' and '.join(unsure)} is not significant: "
                + (
                    "it has no interval"
                    if isnan(self.differences[unsure[0]].high)
                    else "its 95 % interval includes 0"
                )
            )
        if self.cut is not None:
            parts.append(self._length_verdict(self.cut, sure))
        return "; ".join(parts) or None

    def _length_verdict(self, cut: CutBaseline, gains: Sequence[str]) -> str:
        explained = [name for name in gains if cut.explains(name)]
        left = [name for name in gains if name not in explained]
        verdicts = [
            f"{verdict} {' and '.join(names)}"
            for verdict, names in (
                ("shorter captions alone could explain the gain in", explained),
                ("length alone does not explain the gain in", left),
            )
            if names
        ]
        scores = ", ".join(
            f"{name} {in_percent(cut.values[name])}" for name in ("CHAIRs", "CHAIRi", "Recall")
        )
        return (
            f"{self.method}'s captions are shorter: cut after {cut.max_words} space-separated "
            f"words, to a mean Len of {in_percent(cut.values['Len'])}, {self.baseline} scores "
            f"{scores}; {'; '.join(verdicts)}"
        )


def is_gain(difference: Interval) -> bool:
    """Return whether the whole interval of a difference is below 0; False for n/a."""
    return difference.high < 0


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons with p-values that are Holm-adjusted for the number of comparisons."""
    adjusted = holm([one.test.p_value for one in comparisons])
    return tuple(
        replace(one, p_holm=p_value) for one, p_value in zip(comparisons, adjusted, strict=True)
    )


def compare(method: ScoredArm, baseline: ScoredArm, analyzer: Analyzer) -> Comparison:
    """Compare two arms; `with_holm` adjusts the p-values of several comparisons.

    Raises:
        EvaluationError: If they caption different pictures.
    """
    baseline = _align(baseline, method)
    differences = _differences(baseline, method)
    free = [[not caption.hallucinated for caption in arm.captions] for arm in (baseline, method)]
    test = mcnemar(*free)
    found = Comparison(method.method, baseline.method, differences, test, None, test.p_value)
    gains = [name for name in found.gains() if is_gain(differences[name])]
    if not gains or _mean_length(method.captions) >= _mean_length(baseline.captions):
        return found
    return replace(found, cut=_cut(method, baseline, analyzer))


def as_dicts(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Return intervals by name for the output file."""
    return {name: interval.as_dict() for name, interval in intervals.items()}


def _align(arm: ScoredArm, other: ScoredArm) -> ScoredArm:
    """Return an arm with its captions in the order of another arm's pictures."""
    mine = {caption.image_id: caption for caption in arm.captions}
    ids = [caption.image_id for caption in other.captions]
    theirs = set(ids)
    for lacking, name, has in (
        ([image_id for image_id in ids if image_id not in mine], arm.method, other.method),
        ([image_id for image_id in mine if image_id not in theirs], other.method, arm.method),
    ):
        if lacking:
            raise EvaluationError(
                f"{name} lacks captions of {len(lacking)} pictures that {has} has: "
                f"{some_ids(lacking)}; both arms need captions of the same pictures"
            )
    return ScoredArm(arm.method, tuple(mine[image_id] for image_id in ids))


def _cut(method: ScoredArm, baseline: ScoredArm, analyzer: Analyzer) -> CutBaseline:
    """Score the baseline with its captions cut to the method's mean Len.

    All captions are cut after the same number of space-separated words, as in OPERA. `Len` counts
    the analyzer's words and punctuation, so the largest number of words is searched whose mean Len
    is not above the method's.
    """
    target = _mean_length(method.captions)
    fits, exceeds = 0, max(len(one.text.split(" ")) for one in baseline.captions)
    captions = _cut_at(1, baseline, analyzer)
    max_words, step = _first_guess(baseline, target), 1
    # With growing steps: punctuation may all be at one end of a caption.
    while fits + 1 < exceeds:
        if not fits < max_words < exceeds:
            max_words = (fits + exceeds) // 2
        cut = _cut_at(max_words, baseline, analyzer)
        if _mean_length(cut) <= target:
            fits, captions = max_words, cut
            max_words += step
        else:
            exceeds = max_words
            max_words -= step
        step *= 2
    arm = ScoredArm(baseline.method, captions)
    return CutBaseline(max(fits, 1), arm.values(), _differences(arm, method))


def _first_guess(baseline: ScoredArm, target: float) -> int:
    """Estimate where to cut, as if punctuation were spread evenly; each exact try takes seconds."""
    words = [(len(one.text.split(" ")), one.num_words) for one in baseline.captions]
    guesses = range(1, max(length for length, _ in words) + 1)

    def mean(guess: int) -> float:
        return fmean(count * min(1.0, (guess + 1) / length) for length, count in words)

    return 1 + bisect_right(guesses, target, key=mean)


def _cut_at(max_words: int, baseline: ScoredArm, analyzer: Analyzer) -> tuple[ScoredCaption, ...]:
    """Return the baseline's captions cut after some words; shorter captions are kept."""
    found = []
    for caption in baseline.captions:
        text = cut_words(caption.text, max_words)
        if text != caption.text:
            truth = {caption.image_id: caption.truth}
            (caption,) = score([Caption(caption.image_id, text)], truth, analyzer)
        found.append(caption)
    return tuple(found)


def _differences(first: ScoredArm, second: ScoredArm) -> dict[str, Interval]:
    found = paired_intervals(first.counts(), second.counts(), metrics, highest=HIGHEST)
    return dict(zip(METRICS, found, strict=True))


def _mean_length(captions: Sequence[ScoredCaption]) -> float:
    """Return the mean Len: words and punctuation marks, as the analyzer counts them."""
    return fmean(caption.num_words for caption in captions)
