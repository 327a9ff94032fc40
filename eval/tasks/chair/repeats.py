"""CHAIR's numbers over the repeats of a run: a scorer that gives the numbers of `chair.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from eval.files.answers import Answer, Caption
from eval.stats.intervals import Array
from eval.stats.metric import Metric
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.scoring import HIGHEST, METRICS, ScoreSettings, metrics, score

# The counts of no caption.
NOTHING: Final = (0,) * 7
HEADINGS: Final = {"Len": "Len, with punctuation"}


class CaptionScorer:
    """Scores answers that are captions, see `eval.stats.metric.Scorer`."""

    pooled: ClassVar[bool] = False
    # Len is in hundreds of words, so percent gives words.
    metrics: ClassVar[Sequence[Metric]] = tuple(
        Metric(name, HEADINGS.get(name, ""), digits=1, highest=highest)
        for name, highest in zip(METRICS, HIGHEST, strict=True)
    )

    def __init__(self, settings: ScoreSettings) -> None:
        """Read the ground truth.

        Args:
            settings: How captions are analyzed, and the ground truth.
        """
        self._analyzer = choose(settings.analyzer, fixes=settings.lexicon_fixes)
        self._truth = settings.truth(self._analyzer).objects
        self._settings = settings

    def counts(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return the numerators and denominators of CHAIR's ratios, summed over captions."""
        captions = [self._settings.cut(Caption(answer.item.id, answer.text)) for answer in answers]
        scored = score(captions, self._truth, self._analyzer)
        return [sum(of) for of in zip(NOTHING, *(one.counts() for one in scored), strict=True)]

    def numbers(self, sums: Array) -> Array:
        """Compute CHAIRs, CHAIRi, Recall and Len from sums of counts, (C, ...) -> (4, ...)."""
        return metrics(sums)

    def right(self, answer: Answer) -> bool | None:
        """Return None: a caption is not right or wrong."""
        return None

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return nothing: captions have no parts."""
        return {}
