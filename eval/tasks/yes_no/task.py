"""What all yes/no benchmarks share: counts, and the metrics of POPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.saved import SavedAnswers
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import Appendix, Task
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.coverage import coverage, coverage_note
from eval.tasks.yes_no.disagreement import disagreement_notes, disagreements
from eval.tasks.yes_no.parsers import LEAVE_OUT, PARSERS
from eval.tasks.yes_no.probability import probabilities
from eval.tasks.yes_no.probability_table import probability_text
from eval.tasks.yes_no.said import Matching
from eval.tasks.yes_no.settings import (
    GENERATE,
    LIKELIHOOD,
    SCORINGS,
    YesNoSettings,
    add_saved_flags,
)

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

YES, NO = "yes", "no"
# What answers add up to; tp, fp, tn and fn are of the positive class.
COUNTS: Final = ("total", "tp", "fp", "tn", "fn", "unknown", "positives", "asked", "yes")


class YesNoTask(Task):
    """A benchmark of questions whose right answers are yes or no.

    An unknown answer is wrong: it counts against accuracy and recall, and is neither a predicted
    yes nor a predicted no. Only the parsers in `leave_out` leave it out of all numbers but the rate
    of unknown answers.

    Attributes:
        positive: The class that precision, recall and F1 are of.
        leave_out: Parsers that leave unknown answers out, as its reference scorer does.
        scorer: Whose formulas the numbers are.
        expected: What `sizes` returns.
    """

    settings_class: ClassVar[type[RunSettings]] = YesNoSettings
    wants_p_yes = True
    positive: ClassVar[str] = YES
    leave_out: ClassVar[Sequence[str]] = LEAVE_OUT
    scorer: ClassVar[str] = "POPE's evaluate.py"
    expected: ClassVar[Mapping[str, int]] = MappingProxyType({})
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
        """Add the flags of how answers are read, and of saved ones."""
        flags.flag("--parser", help=f"how answers are read: {', '.join(PARSERS)} (the protocol's)")
        flags.flag("--scoring", help=f"{', or '.join(SCORINGS)}: yes or no by p(yes) ({GENERATE})")
        add_saved_flags(flags)

    @property
    def likelihood(self) -> bool:
        """Whether the likelier word is the answer."""
        return getattr(self.settings, "scoring", GENERATE) == LIKELIHOOD

    def asked(self) -> dict[str, Any]:
        """Return the scoring, where answers are not generated."""
        return {"scoring": LIKELIHOOD} if self.likelihood else {}

    @property
    def parser(self) -> str:
        """Name of the parser: the settings', else the protocol's, else that of the papers."""
        chosen = getattr(self.settings, "parser", None)
        return chosen or (self.protocol or self.protocol_of("opera", "")).parser

    def saved(self) -> Path | None:
        """Return the file or run folder of `--answers`."""
        settings = self.settings
        return settings.answers if isinstance(settings, YesNoSettings) else None

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Return the answers of a file."""
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        try:
            return read_answers(
                path,
                items,
                answer_key=settings.answer_key,
                id_key=settings.id_key,
                rule=self.matching,
            )
        except EvaluationError as error:
            if settings.limit is None:
                raise
            raise EvaluationError(
                f"{error} (--limit {settings.limit} keeps the first {settings.limit} questions of "
                "each part only: leave it out if the file answers all)"
            ) from error

    def check_run(self, run: RecordedRun) -> None:
        """Refuse what says how a file is read beside a run folder, which is scored whole."""
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        settings.check_whole(run.path)

    def read(self, answer: Answer) -> str | None:
        """Return "yes", "no", or None for unknown."""
        return PARSERS[self.parser](answer.text)

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None where the parser leaves it out.

        Arms then have different denominators, so that they are not tested, see `Scorer`.
        """
        said = self.read(answer)
        return None if said is None and self.parser in self.leave_out else said == answer.item.label

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the sums of COUNTS over answers."""
        cells = [(self.read(answer), answer.item.label) for answer in answers]
        unknown = sum(said is None for said, _ in cells)
        if self.parser in self.leave_out:
            cells = [cell for cell in cells if cell[0] is not None]
        one = self.positive
        other = NO if one == YES else YES
        return [
            len(cells),
            *(
                cells.count(cell)
                for cell in ((one, one), (one, other), (other, other), (other, one))
            ),
            unknown,
            sum(label == one for _, label in cells),
            len(answers),
            sum(said == YES for said, _ in cells),
        ]

    def numbers(self, sums: Array) -> Array:
        """Return accuracy, precision, recall, F1, yes ratio and unknown rate.

        F1 is 2 tp / (predicted positives + positives), which is the harmonic mean of precision and
        recall where both are defined. The yes ratio is that of the predictions.
        """
        total, tp, fp, tn, _, unknown, positives, asked, yes = sums
        return np.stack(
            [
                ratio(tp + tn, total),
                ratio(tp, tp + fp),
                ratio(tp, positives),
                ratio(2 * tp, tp + fp + positives),
                ratio(yes, total),
                ratio(unknown, asked),
            ]
        )

    def facts(self) -> dict[str, Any]:
        """Return the parser."""
        return {"parser": self.parser}

    @property
    def matching(self) -> Matching:
        """How rows of `--answers` are matched with questions."""
        settings = self.settings
        return Matching(partial=isinstance(settings, YesNoSettings) and settings.partial)

    def sizes(self, arms: Mapping[str, Sequence[Answer]]) -> Mapping[str, int]:
        """Return how many questions there are by part; nothing where editions differ."""
        return self.expected

    def beside(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return what the probabilities of yes say of the arms."""
        parts = list(dict.fromkeys(a.item.part for answers in arms.values() for a in answers))
        if self.pooled:  # one number of all questions, not a mean over parts
            arms, parts = (
                {arm: [_without_part(one) for one in of] for arm, of in arms.items()},
                [""],
            )
        found = probabilities(arms, references, self.totals(parts))
        if found is None:
            return Appendix()
        return Appendix(probability_text(found, self.resampled), {"p_yes": found.as_dict()})

    def more(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return counts and metrics under every parser, and where parsers disagree, by arm."""
        parsers = {name: self.with_parser(name)._plain(arms) for name in PARSERS}
        found = disagreements(arms, self.parser)
        return {
            "scorer": self.scorer,
            "positive": self.positive,
            "coverage": coverage(arms, self.sizes(arms))._asdict(),
            "parsers": parsers,
            "parser_disagreement": {n: d._asdict() for n, d in found.items()},
        }

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return how much is answered, what parsers disagree on, and how many answers are empty."""
        unknown = {
            arm: sum(self.read(answer) is None for answer in answers) / len(answers)
            for arm, answers in arms.items()
        }
        how = f"scored by the formulas of {self.scorer}; positive class: {self.positive}"
        covered = coverage_note(coverage(arms, self.sizes(arms)), unknown)
        disagreed = disagreement_notes(disagreements(arms, self.parser), self.parser)
        return [f"{how}\n{covered}", *disagreed]

    def with_parser(self, parser: str) -> YesNoTask:
        """Return the same benchmark with another parser."""
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        return type(self)(replace(settings, parser=parser, scoring=GENERATE), self.protocol)

    def _plain(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for arm, answers in arms.items():
            groups: dict[str, dict[str, list[Answer]]] = {}
            for answer in answers:
                pictures = groups.setdefault(answer.item.part, {})
                pictures.setdefault(answer.item.unit, []).append(answer)
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


def _without_part(answer: Answer) -> Answer:
    """Return an answer to a question of a benchmark of one part."""
    return replace(answer, item=replace(answer.item, part=""))
