"""A benchmark whose answers are neither right nor wrong."""

from __future__ import annotations

from collections.abc import Sequence

from eval.files.answers import Answer, Item
from eval.stats.intervals import Array
from eval.tasks.base import Task


class NoLabels(Task):
    """Counts answers."""

    name = "toy"

    def items(self) -> list[Item]:
        return []

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        return [len(answers)]

    def numbers(self, sums: Array) -> Array:
        return sums
