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
from eval.tasks.base import Appendix, Task
from eval.tasks.yes_no.parsers import PARSERS
from eval.tasks.yes_no.probability import probabilities
from eval.tasks.yes_no.probability_table import probability_text

# What each answer adds to the counts; the cells are (prediction, label). None is unknown.
CELLS: Final = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
GENERATE, LIKELIHOOD = "generate", "likelihood"
SCORINGS: Final = (GENERATE, LIKELIHOOD)
COUNTS: Final = ("total", "tp", "fp", "tn", "fn", "unknown", "positives")


@dataclass(frozen=True, slots=True)
class YesNoSettings(RunSettings):
    """Settings of a yes/no benchmark, besides the common ones.

    Attributes:
        parser: How answers are read; None for the protocol's.
        scoring: "generate" reads the text that a model says; "likelihood" takes the likelier of
            yes and no at the first token, from one forward pass.
    """

    parser: str | None = None
    scoring: str = GENERATE

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.parser is not None and self.parser not in PARSERS:
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, PARSERS)}"
            )
        if self.scoring not in SCORINGS:
            raise EvaluationError(
                f"scoring {self.scoring!r} is unknown: {nearest(self.scoring, SCORINGS)}"
            )
        if self.scoring == LIKELIHOOD:
            self._check_likelihood()

    def _check_likelihood(self) -> None:
        """Refuse settings of a text that is not generated.

        Raises:
            EvaluationError: Naming the first.
        """
        for flag, given, why in (
            ("--sample", self.sample, "nothing is sampled"),
            ("--beam", self.beam > 1, "beams do not change the first token's probability"),
            ("--max-new-tokens", self.max_new_tokens is not None, "nothing is generated"),
            ("--parser", self.parser is not None, "there is no text to read"),
        ):
            if given:
                raise EvaluationError(
                    f"--scoring likelihood does not go with {flag}: {why}; leave one of them out"
                )


class YesNoTask(Task):
    """A benchmark of questions whose right answers are yes or no; "yes" is the positive class.

    An unknown answer is wrong: it counts against accuracy and recall, and is no predicted yes.
    """

    settings_class = YesNoSettings
    wants_p_yes = True
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
        """Add the flags of how answers are read."""
        flags.flag("--parser", help=f"how answers are read: {', '.join(PARSERS)} (the protocol's)")
        flags.flag("--scoring", help=f"{', or '.join(SCORINGS)}: yes or no by p(yes) ({GENERATE})")

    @property
    def likelihood(self) -> bool:
        """Whether the likelier word is the answer."""
        return getattr(self.settings, "scoring", GENERATE) == LIKELIHOOD

    def asked(self) -> dict[str, Any]:
        """Return the scoring, where answers are not generated."""
        return {"scoring": LIKELIHOOD} if self.likelihood else {}

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

    def beside(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return what the probabilities of yes say of the arms."""
        parts = list(dict.fromkeys(a.item.part for answers in arms.values() for a in answers))
        found = probabilities(arms, references, self.totals(parts))
        if found is None:
            return Appendix()
        return Appendix(probability_text(found), {"p_yes": found.as_dict()})

    def more(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return counts and metrics under every parser, by parser, arm and part."""
        return {"parsers": {name: self._with(name)._plain(arms) for name in PARSERS}}

    def _with(self, parser: str) -> YesNoTask:
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        return type(self)(replace(settings, parser=parser, scoring=GENERATE), self.protocol)

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
