"""CHAIR's numbers: from the objects that captions mention to CHAIRs, CHAIRi, Recall and Len.

Source: Rohrbach et al., "Object Hallucination in Image Captioning" (2018), as `compute_chair` of
OPERA's `chair.py` has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Caption
from eval.files.coco import SPLITS
from eval.files.image_ids import ImageId
from eval.run.settings import MOST_WORKERS
from eval.stats.intervals import NONE, Interval, bootstrap_intervals, ratio
from eval.tasks.chair import truth as chair_truth
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.vocabulary import Mention

METRICS: Final = ("CHAIRs", "CHAIRi", "Recall", "Len")
# The largest value that each can have; lengths have none.
HIGHEST: Final = (1.0, 1.0, 1.0, None)
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """What decides the numbers of given captions.

    Attributes:
        max_words: Cut captions after so many words.
        drop_unfinished: Leave out a last sentence that has no end.
        coco_path: Folder of COCO's annotations.
        splits: Which of them.
        cache: Where what is built of them is kept; None for a file beside them.
        ground_truth: A ground truth file instead of annotations.
        analyzer: "auto", "nltk" or "lexicon".
        lexicon_fixes: Add the words that CHAIR's list means but never matches.
        num_workers: Processes that read COCO's captions; None for one per core.
    """

    max_words: int | None = None
    drop_unfinished: bool = False
    coco_path: Path | None = None
    splits: tuple[str, ...] = SPLITS
    cache: Path | None = None
    ground_truth: Path | None = None
    analyzer: str = "auto"
    lexicon_fixes: bool = False
    num_workers: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            EvaluationError: Naming the flag, its value and what is allowed.
        """
        for name in ("max_words", "num_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"--{name} {value}, but at least 1 is needed")
        if self.num_workers is not None and self.num_workers > MOST_WORKERS:
            raise EvaluationError(
                f"--num_workers {self.num_workers}, but {MOST_WORKERS} processes are the most"
            )
        if self.coco_path is None and self.ground_truth is None:
            raise EvaluationError(
                "no ground truth: pass --coco_path with the folder of COCO's annotations "
                "(scripts/download_data.sh fetches them), or --ground-truth with a file"
            )
        if self.coco_path is not None and self.ground_truth is not None:
            raise EvaluationError(
                f"--coco_path {self.coco_path} and --ground-truth {self.ground_truth} are both "
                "given; pass one of them"
            )

    def truth(self, analyzer: Analyzer) -> chair_truth.GroundTruth:
        """Return the ground truth, from the file or from COCO's annotations."""
        if self.ground_truth is not None:
            return chair_truth.read(self.ground_truth)
        assert self.coco_path is not None
        fixes = "-fixes" if self.lexicon_fixes else ""
        name = f"chair_ground_truth-{analyzer.name}{fixes}-{'+'.join(self.splits)}.json.gz"
        return chair_truth.cached_truth(
            self.coco_path,
            analyzer,
            splits=self.splits,
            cache=self.cache or self.coco_path / name,
            num_workers=self.num_workers or os.cpu_count() or 1,
        )

    def cut(self, caption: Caption) -> Caption:
        """Return a caption as it is scored."""
        text = caption.text
        if self.max_words is not None:
            text = cut_words(text, self.max_words)
        if self.drop_unfinished:
            text = drop_unfinished(text)
        return Caption(caption.image_id, text)

    def cuts(self) -> str:
        """Return how captions are cut, in words."""
        cuts = [] if self.max_words is None else [f"after {self.max_words} words"]
        if self.drop_unfinished:
            cuts.append("last sentence dropped where it has no end")
        return ", ".join(cuts) or "none"


def cut_words(text: str, max_words: int) -> str:
    """Return the first words of a text.

    Words are what single spaces separate, as OPERA's scripts split; a line break separates none.
    """
    return " ".join(text.split(" ")[:max_words])


def drop_unfinished(text: str) -> str:
    """Return a text without its last sentence if that has no end, as OPERA's 64-token column does.

    A sentence ends in a full stop, an exclamation mark or a question mark, and a quotation mark or
    bracket after it belongs to it.
    """
    ends = [match.end() for match in re.finditer(r"[.!?][\"'\u201d\u2019)\]]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption with what CHAIR found in it.

    Attributes:
        image_id: COCO's id of the picture, or its name.
        text: The caption as it was scored.
        mentions: Words that name an object, in order; an object may be named more than once.
        truth: Objects that are in the picture.
        num_words: Length in words, punctuation included.
    """

    image_id: ImageId
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


@dataclass(frozen=True)
class ScoredArm:
    """All captions of one method, scored."""

    method: str
    captions: tuple[ScoredCaption, ...]

    def counts(self) -> Array:
        """Return the counts of each caption, shape (N, C)."""
        return np.array([caption.counts() for caption in self.captions], dtype=np.float64)

    def values(self) -> dict[str, float]:
        """Return the metrics by name: fractions, nan for 0/0, and Len in hundreds of words."""
        return dict(zip(METRICS, metrics(self.counts().sum(axis=0)).tolist(), strict=True))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The metrics with their 95 % intervals."""
        found = bootstrap_intervals(self.counts(), metrics, highest=HIGHEST)
        return dict(zip(METRICS, found, strict=True))

    def without_objects(self) -> int:
        """Return how many captions name no object, which CHAIRi says nothing of."""
        return sum(not caption.mentions for caption in self.captions)


def metrics(sums: Array) -> Array:
    """Return CHAIRs, CHAIRi, Recall and Len from the sums over captions, shape (C, ...).

    CHAIRs: captions with a hallucinated mention / captions. CHAIRi: hallucinated mentions /
    mentions. Recall: objects of the pictures that are mentioned / objects of the pictures. Len:
    mean number of words, in hundreds. 0/0 is nan: CHAIRi says nothing of captions that name no
    object.
    """
    captions, with_hallucination, hallucinated, mentions, recalled, truth, words = sums
    return np.stack([
        ratio(with_hallucination, captions),
        ratio(hallucinated, mentions),
        ratio(recalled, truth),
        0.01 * ratio(words, captions),
    ])  # fmt: skip


def in_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers by name for a JSON file, which has null where there is no number."""
    return {name: None if isnan(value) else value for name, value in values.items()}


def in_percent(value: float) -> str:
    """Return a number times 100 for a sentence; n/a where there is none."""
    return NONE if isnan(value) else f"{100 * value:.1f}"


def score(
    captions: Sequence[Caption], truth: Mapping[ImageId, frozenset[str]], analyzer: Analyzer
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
