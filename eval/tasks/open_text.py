"""Answers in free text, which another command scores: their length, and cut and empty answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from eval.files.answers import Answer
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import Task


class OpenTextTask(Task):
    """A benchmark with statistics of its answers; another command scores them."""

    published = False
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("words", factor=1.0, digits=1, highest=None),
        Metric("characters", factor=1.0, digits=1, highest=None),
        Metric("cut", "cut %", digits=1),
        Metric("empty", "empty %", digits=1),
    )

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the numbers of answers, words, characters, cut answers and empty answers."""
        texts = [answer.text for answer in answers]
        return [
            len(texts),
            sum(len(text.split()) for text in texts),
            sum(map(len, texts)),
            sum(not answer.finished for answer in answers),
            texts.count(""),
        ]

    def numbers(self, sums: Array) -> Array:
        """Compute mean words and characters, and the shares of cut and empty answers."""
        return np.stack([ratio(count, sums[0]) for count in sums[1:]])
