"""CHAIR's numbers: from the objects that captions mention to CHAIRs, CHAIRi, Recall and Len.

Source: Rohrbach et al., "Object Hallucination in Image Captioning" (2018), as `compute_chair` of
OPERA's `chair.py` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.errors import EvaluationError
from eval.stats.intervals import Interval, bootstrap_intervals, ratio
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.captions import Caption, some_ids
from eval.tasks.chair.vocabulary import Mention

METRICS: Final = ("CHAIRs", "CHAIRi", "Recall", "Len")
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption with what CHAIR found in it.

    Attributes:
        image_id: COCO's id of the picture.
        text: The caption as it was scored.
        mentions: Words that name an object, in order; an object may be named more than once.
        truth: Objects that are in the picture.
        num_words: Length in words, punctuation included.
    """

    image_id: int
    text: str
    mentions: tuple[Mention, ...]
    truth: frozenset[str]
    num_words: int

    @property
    def hallucinated(self) -> list[Mention]:
        """Mentions of objects that are not in the picture."""
        return [mention for mention in self.mentions if mention.object not in self.truth]

    @property
    def recalled(self) -> set[str]:
        """Objects of the picture that are mentioned."""
        return {mention.object for mention in self.mentions} & self.truth

    def counts(self) -> tuple[int, ...]:
        """Return what the caption adds to the counts that `metrics` takes, in its order."""
        hallucinated = len(self.hallucinated)
        return (1, hallucinated > 0, hallucinated, len(self.mentions), len(self.recalled),
                len(self.truth), self.num_words)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScoredArm:
    """All captions of one method, scored."""

    method: str
    captions: tuple[ScoredCaption, ...]

    def counts(self) -> Array:
        """Return the counts of each caption, shape (N, C)."""
        return np.array([caption.counts() for caption in self.captions], dtype=np.float64)

    def values(self) -> dict[str, float]:
        """Return the metrics by name: fractions, and Len in hundreds of words."""
        return dict(zip(METRICS, metrics(self.counts().sum(axis=0)).tolist(), strict=True))

    def intervals(self) -> dict[str, Interval]:
        """Return the metrics with their 95 % intervals."""
        return dict(zip(METRICS, bootstrap_intervals(self.counts(), metrics), strict=True))


def metrics(sums: Array) -> Array:
    """Return CHAIRs, CHAIRi, Recall and Len from the sums over captions, shape (C, ...).

    CHAIRs: captions with a hallucinated mention / captions. CHAIRi: hallucinated mentions /
    mentions. Recall: objects of the pictures that are mentioned / objects of the pictures. Len:
    mean number of words, in hundreds. A ratio whose denominator is zero is 0.
    """
    captions, with_hallucination, hallucinated, mentions, recalled, truth, words = sums
    return np.stack([
        ratio(with_hallucination, captions),
        ratio(hallucinated, mentions),
        ratio(recalled, truth),
        0.01 * ratio(words, captions),
    ])  # fmt: skip


def score(
    captions: Sequence[Caption], truth: Mapping[int, frozenset[str]], analyzer: Analyzer
) -> tuple[ScoredCaption, ...]:
    """Score captions against what is in their pictures.

    Raises:
        EvaluationError: If the ground truth lacks one of the pictures.
    """
    unknown = [caption.image_id for caption in captions if caption.image_id not in truth]
    if unknown:
        raise EvaluationError(
            f"the ground truth has nothing on {len(unknown)} of {len(captions)} pictures: "
            f"{some_ids(unknown)}; pass the ground truth of the data set that they are from, or "
            "remove their captions"
        )
    scored = []
    for caption in captions:
        mentions, num_words = analyzer.analyze(caption.text)
        objects = truth[caption.image_id]
        scored.append(ScoredCaption(caption.image_id, caption.text, mentions, objects, num_words))
    return tuple(scored)


def sentence_row(caption: ScoredCaption) -> dict[str, Any]:
    """Return one caption's result for the output file, under the keys of OPERA's `chair.py`."""
    hallucinated = caption.hallucinated
    return {
        "image_id": caption.image_id,
        "caption": caption.text,
        "mscoco_gt_words": sorted(caption.truth),
        "mscoco_generated_words": [mention.object for mention in caption.mentions],
        "mscoco_hallucinated_words": [[mention.word, mention.object] for mention in hallucinated],
        "num_words": caption.num_words,
        "metrics": {
            "CHAIRs": int(bool(hallucinated)),
            "CHAIRi": len(hallucinated) / max(len(caption.mentions), 1),
            "Recall": len(caption.recalled) / max(len(caption.truth), 1),
            "Len": 0.01 * caption.num_words,
        },
    }
