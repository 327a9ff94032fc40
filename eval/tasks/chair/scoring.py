"""Compute CHAIRs, CHAIRi, Recall and Len from the objects that captions mention.

Source: Rohrbach et al., "Object Hallucination in Image Captioning" (2018), as implemented by
`compute_chair` of OPERA's `chair.py`.
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
# The largest possible value of each; lengths have no bound.
HIGHEST: Final = (1.0, 1.0, 1.0, None)
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """Settings that decide the scores of given captions.

    Attributes:
        max_words: Cut captions after this number of words; None to keep them whole.
        drop_unfinished: Drop the last sentence if it is unfinished.
        coco_path: Folder of COCO's annotations.
        splits: Splits of the annotations.
        cache: File that keeps the ground truth built from them; None for one in their folder.
        ground_truth: A ground truth file instead of annotations.
        analyzer: "auto", "nltk" or "lexicon".
        lexicon_fixes: Add the words that CHAIR's list contains but can never match.
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
                f"--num_workers {self.num_workers}, but at most {MOST_WORKERS} are allowed"
            )
        if self.coco_path is None and self.ground_truth is None:
            raise EvaluationError(
                "no ground truth: pass --coco_path with the folder of COCO's annotations "
                "(scripts/data/download.sh fetches them), or --ground-truth with a file"
            )
        if self.coco_path is not None and self.ground_truth is not None:
            raise EvaluationError(
                f"both --coco_path {self.coco_path} and --ground-truth {self.ground_truth} are "
                "given, but only one is allowed; leave one of them out"
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
        """Return a caption, cut as the settings require."""
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
            cuts.append("unfinished last sentence dropped")
        return ", ".join(cuts) or "none"


def cut_words(text: str, max_words: int) -> str:
    """Return the first words of a text.

    Words are separated by single spaces, as in OPERA's scripts; a line break does not separate
    them.
    """
    return " ".join(text.split(" ")[:max_words])


def drop_unfinished(text: str) -> str:
    """Return a text without an unfinished last sentence, as in OPERA's 64-token column.

    A sentence ends with a full stop, an exclamation mark or a question mark. A quotation mark or
    bracket after it belongs to the sentence.
    """
    ends = [match.end() for match in re.finditer(r"[.!?][\"'\u201d\u2019)\]]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption with the objects that CHAIR found in it.

    Attributes:
        image_id: COCO's id of the picture, or its name.
        text: The caption after cutting.
        mentions: Words that name an object, in order; an object may be mentioned more than once.
        truth: Objects that are in the picture.
        num_words: Number of words and punctuation marks.
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
        """Return the caption's counts, in the order that `metrics` expects."""
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
        """Return the metrics by name: as fractions, nan for 0/0, and Len in hundreds of words."""
        return dict(zip(METRICS, metrics(self.counts().sum(axis=0)).tolist(), strict=True))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The metrics with their 95 % intervals."""
        found = bootstrap_intervals(self.counts(), metrics, highest=HIGHEST)
        return dict(zip(METRICS, found, strict=True))

    def without_objects(self) -> int:
        """Return the number of captions that mention no object, which CHAIRi ignores."""
        return sum(not caption.mentions for caption in self.captions)


def metrics(sums: Array) -> Array:
    """Compute CHAIRs, CHAIRi, Recall and Len from sums over captions, (C, ...) -> (4, ...).

    CHAIRs: captions with a hallucinated mention / captions. CHAIRi: hallucinated mentions /
    mentions. Recall: objects of the pictures that are mentioned / objects of the pictures. Len:
    mean number of words, in hundreds. 0/0 is nan: CHAIRi is undefined if no caption mentions an
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
    """Return numbers by name for a JSON file, with null for nan."""
    return {name: None if isnan(value) else value for name, value in values.items()}


def in_percent(value: float) -> str:
    """Return a number times 100 as text; n/a for nan."""
    return NONE if isnan(value) else f"{100 * value:.1f}"


def score(
    captions: Sequence[Caption], truth: Mapping[ImageId, frozenset[str]], analyzer: Analyzer
) -> tuple[ScoredCaption, ...]:
    """Score captions against the objects in their pictures.

    Raises:
        EvaluationError: If the ground truth lacks one of the pictures.
    """
    unknown = [caption.image_id for caption in captions if caption.image_id not in truth]
    if unknown:
        raise EvaluationError(
            f"the ground truth lacks {len(unknown)} of {len(captions)} pictures: "
            f"{some_ids(unknown)}; pass the ground truth of their data set, or remove their "
            "captions"
        )
    scored = []
    for caption in captions:
        mentions, num_words = analyzer.analyze(caption.text)
        objects = truth[caption.image_id]
        scored.append(ScoredCaption(caption.image_id, caption.text, mentions, objects, num_words))
    return tuple(scored)
