"""What all yes/no benchmarks share: counts, and the metrics of POPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, ClassVar, Final

import numpy as np

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Answer
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import Task
from eval.tasks.yes_no.parsers import PARSERS

# What each answer adds to the counts; the cells are (prediction, label). None is unknown.
CELLS: Final = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
COUNTS: Final = ("total", "tp", "fp", "tn", "fn", "unknown", "positives")


@dataclass(frozen=True, slots=True)
class YesNoSettings(RunSettings):
    """Settings of a yes/no benchmark, besides the common ones.

    Attributes:
        parser: How answers are read; None for the protocol's.
    """

    parser: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.parser is not None and self.parser not in PARSERS:
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, PARSERS)}"
            )


class YesNoTask(Task):
    """A benchmark of questions whose right answers are yes or no; "yes" is the positive class.

    An unknown answer is wrong: it counts against accuracy and recall, and is no predicted yes.
    """

    settings_class = YesNoSettings
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("accuracy"),
        Metric("precision", wide=True),
        Metric("recall", wide=True),
        Metric("f1", "F1"),
        Metric("yes_ratio", "yes %"),
        Metric("unknown_rate", "unknown %", wide=True),
    )

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flag of the parser."""
        flags.flag("--parser", help=f"how answers are read: {', '.join(PARSERS)} (the protocol's)")

    @property
    def parser(self) -> str:
        """Name of the parser: the settings', else the protocol's."""
        chosen = getattr(self.settings, "parser", None)
        return chosen or (self.protocol.parser if self.protocol else "opera")

    def read(self, answer: Answer) -> str | None:
        """Return "yes", "no", or None for unknown."""
        return PARSERS[self.parser](answer.text)

    def right(self, answer: Answer) -> bool:
        """Return whether an answer is right."""
        return self.read(answer) == answer.item.label

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the sums of COUNTS over answers."""
        cells = [(self.read(answer), answer.item.label) for answer in answers]
        return [
            len(cells),
            *(cells.count(cell) for cell in CELLS),
            sum(said is None for said, _ in cells),
            sum(label == "yes" for _, label in cells),
        ]

    def numbers(self, sums: Array) -> Array:
        """Return accuracy, precision, recall, F1, yes ratio and unknown rate.

        F1 is 2 tp / (predicted yes + labelled yes), which is the harmonic mean of precision and
        recall where both are defined. The yes ratio is that of the predictions.
        """
        total, tp, fp, tn, _, unknown, positives = sums
        return np.stack(
            [
                ratio(tp + tn, total),
                ratio(tp, tp + fp),
                ratio(tp, positives),
                ratio(2 * tp, tp + fp + positives),
                ratio(tp + fp, total),
                ratio(unknown, total),
            ]
        )

    def facts(self) -> dict[str, Any]:
        """Return the parser."""
        return {"parser": self.parser}

    def more(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return counts and metrics under every parser, by parser, arm and part."""
        return {"parsers": {name: self._with(name)._plain(arms) for name in PARSERS}}

    def _with(self, parser: str) -> YesNoTask:
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        return type(self)(replace(settings, parser=parser), self.protocol)

    def _plain(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for arm, answers in arms.items():
            groups: dict[str, dict[str, list[Answer]]] = {}
            for answer in answers:
                pictures = groups.setdefault(answer.item.part, {})
                pictures.setdefault(answer.item.image, []).append(answer)
            for part, pictures in groups.items():
                # Picture by picture, as everywhere: a benchmark may count pairs.
                counts = np.sum([self.counts(of) for of in pictures.values()], axis=0)
                numbers = self.numbers(counts.astype(np.float64)).tolist()
                found.setdefault(arm, {})[part] = {
                    **dict(zip(COUNTS, counts.tolist(), strict=False)),
                    **{
                        metric.name: None if isnan(value) else value
                        for metric, value in zip(self.metrics, numbers, strict=True)
                    },
                }
        return found
