"""Two arms on the same pictures: differences, a test, and whether length alone explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Caption
from eval.stats.intervals import Interval, McNemar, mcnemar, paired_intervals
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.scoring import METRICS, ScoredArm, cut_words, metrics, score

# The test is on captions free of hallucinated objects: those that the method gains and loses.
DIFFERENCES: Final = ("method", "metric", "difference (95 %)", "McNemar p (gained, lost)")


@dataclass(frozen=True, slots=True)
class CutBaseline:
    """The baseline's captions, cut until they are as short as the method's.

    Attributes:
        max_words: Words that each caption keeps at most.
        values: Metrics of the cut captions.
        differences: Method minus cut baseline, with 95 % intervals.
    """

    max_words: int
    values: dict[str, float]
    differences: dict[str, Interval]

    def explains(self, metric: str) -> bool:
        """Tell whether the method is no surer better than the baseline at its length."""
        return self.differences[metric].high >= 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method against the baseline, picture by picture.

    Attributes:
        method: Name of the arm.
        baseline: Name of the other.
        differences: Method minus baseline, with 95 % intervals, by metric.
        test: McNemar's test on captions without a hallucinated object.
        cut: The baseline at the method's length; None unless the method is better and shorter.
    """

    method: str
    baseline: str
    differences: dict[str, Interval]
    test: McNemar
    cut: CutBaseline | None

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for the output file."""
        return {
            "method": self.method,
            "baseline": self.baseline,
            "differences": as_dicts(self.differences),
            "mcnemar": self.test.as_dict(),
            "cut_baseline": None
            if self.cut is None
            else {
                "max_words": self.cut.max_words,
                "metrics": self.cut.values,
                "differences": as_dicts(self.cut.differences),
            },
        }

    def gains(self) -> list[str]:
        """Return the CHAIR metrics in which the method is better."""
        return [name for name in ("CHAIRs", "CHAIRi") if self.differences[name].value < 0]

    def rows(self) -> list[list[str]]:
        """Return the rows of a table with the titles `DIFFERENCES`; percent, Len in words."""
        test = f"{self.test.p_value:.2g} ({self.test.gained}, {self.test.lost})"
        return [
            [self.method, name, found.points(), test if name == "CHAIRs" else ""]
            for name, found in self.differences.items()
        ]

    def length_sentence(self) -> str | None:
        """Return whether the length of the captions explains the gain; None if it can't."""
        cut = self.cut
        if cut is None:
            return None
        explained = [name for name in self.gains() if cut.explains(name)]
        left = [name for name in self.gains() if name not in explained]
        verdicts = [
            f"{verdict} {' and '.join(names)}"
            for verdict, names in (
                ("the change in length alone could explain the gain in", explained),
                ("length alone does not explain the gain in", left),
            )
            if names
        ]
        return (
            f"{self.method}'s captions are shorter: cut at {cut.max_words} words, to the same mean "
            f"length, {self.baseline} scores CHAIRs {100 * cut.values['CHAIRs']:.1f}, "
            f"CHAIRi {100 * cut.values['CHAIRi']:.1f}, Recall {100 * cut.values['Recall']:.1f}; "
            f"{'; '.join(verdicts)}"
        )


def compare(method: ScoredArm, baseline: ScoredArm, analyzer: Analyzer) -> Comparison:
    """Compare two arms.

    Raises:
        EvaluationError: If they are not of the same pictures.
    """
    baseline = _in_order(baseline, method)
    differences = _differences(baseline, method)
    free = [[not caption.hallucinated for caption in arm.captions] for arm in (baseline, method)]
    found = Comparison(method.method, baseline.method, differences, mcnemar(*free), None)
    if not found.gains() or _mean_length(method) >= _mean_length(baseline):
        return found
    return replace(found, cut=_cut(method, baseline, analyzer))


def as_dicts(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Return intervals by name for the output file."""
    return {name: interval.as_dict() for name, interval in intervals.items()}


def _in_order(arm: ScoredArm, other: ScoredArm) -> ScoredArm:
    """Return an arm with its captions in the order of another's pictures."""
    mine = {caption.image_id: caption for caption in arm.captions}
    ids = [caption.image_id for caption in other.captions]
    theirs = set(ids)
    for lacking, name, has in (
        ([image_id for image_id in ids if image_id not in mine], arm.method, other.method),
        ([image_id for image_id in mine if image_id not in theirs], other.method, arm.method),
    ):
        if lacking:
            raise EvaluationError(
                f"{name} has no caption of {len(lacking)} pictures that {has} has: "
                f"{some_ids(lacking)}; a comparison needs captions of the same pictures"
            )
    return ScoredArm(arm.method, tuple(mine[image_id] for image_id in ids))


def _cut(method: ScoredArm, baseline: ScoredArm, analyzer: Analyzer) -> CutBaseline:
    """Score the baseline with its captions cut at the one length that gives the method's mean."""
    lengths = [len(caption.text.split(" ")) for caption in baseline.captions]
    target = _mean_length(method)
    shorter = (n for n in range(1, max(lengths))
               if fmean(min(length, n) for length in lengths) <= target)  # fmt: skip
    max_words = max(shorter, default=1)
    texts = [Caption(caption.image_id, cut_words(caption.text, max_words))
             for caption in baseline.captions]  # fmt: skip
    truth = {caption.image_id: caption.truth for caption in baseline.captions}
    arm = ScoredArm(baseline.method, score(texts, truth, analyzer))
    return CutBaseline(max_words, arm.values(), _differences(arm, method))


def _differences(first: ScoredArm, second: ScoredArm) -> dict[str, Interval]:
    found = paired_intervals(first.counts(), second.counts(), metrics)
    return dict(zip(METRICS, found, strict=True))


def _mean_length(arm: ScoredArm) -> float:
    return fmean(len(caption.text.split(" ")) for caption in arm.captions)
