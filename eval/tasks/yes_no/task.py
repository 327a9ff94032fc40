"""The base class of all yes/no benchmarks: counts, and the metrics of POPE."""

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
from eval.tasks.yes_no.answer_rows import Matching
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.coverage import coverage, coverage_note
from eval.tasks.yes_no.disagreement import disagreement_notes, disagreements
from eval.tasks.yes_no.parsers import LEAVE_OUT, PARSERS
from eval.tasks.yes_no.probability import probabilities
from eval.tasks.yes_no.probability_table import probability_text
from eval.tasks.yes_no.settings import (
    GENERATE,
    LIKELIHOOD,
    YesNoSettings,
    add_saved_flags,
)

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

YES, NO = "yes", "no"
# Counts that are summed over answers; tp, fp, tn and fn are those of the positive class.
COUNTS: Final = ("total", "tp", "fp", "tn", "fn", "unknown", "positives", "asked", "yes")


class YesNoTask(Task):
    """A benchmark of questions whose right answers are yes or no.

    An unknown answer is wrong: it lowers accuracy and recall, and is neither a predicted yes nor a
    predicted no. With the parsers in `leave_out`, it is excluded from all numbers except the rate
    of unknown answers.

    Attributes:
        positive: The positive class of precision, recall and F1.
        leave_out: Parsers that exclude unknown answers, as in the reference scorer.
        scorer: Name of the reference scorer, whose formulas are used.
        expected: Number of questions by part, see `sizes`.
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
        """Add the flags for parsing answers, and for saved answers."""
        flags.flag(
            "--parser", help=f"answer parser: {', '.join(PARSERS)} (default: the protocol's)"
        )
        flags.flag("--scoring",
                   help=f"{GENERATE}: parse the text; {LIKELIHOOD}: compare the probabilities of "
                   f"yes and no at the first token ({GENERATE})")  # fmt: skip
        add_saved_flags(flags)

    @property
    def likelihood(self) -> bool:
        """Whether the more likely of yes and no is the answer, and no text is generated."""
        return getattr(self.settings, "scoring", GENERATE) == LIKELIHOOD

    def recorded_settings(self) -> dict[str, Any]:
        """Return the scoring, if answers are not generated."""
        return {"scoring": LIKELIHOOD} if self.likelihood else {}

    @property
    def parser(self) -> str:
        """Name of the parser: that of the settings, else of the protocol, else of the papers."""
        chosen = getattr(self.settings, "parser", None)
        return chosen or (self.protocol or self.protocol_of("opera", "")).parser

    def answers_path(self) -> Path | None:
        """Return the file or run folder of `--answers`."""
        settings = self.settings
        return settings.answers if isinstance(settings, YesNoSettings) else None

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Read the answers of a file."""
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
                f"{error} (--limit {settings.limit} keeps only the first {settings.limit} "
                "questions of each part: leave it out if the file answers all)"
            ) from error

    def check_run(self, run: RecordedRun) -> None:
        """Refuse flags for files of answers, since a run folder is scored whole."""
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        settings.check_whole(run.path)

    def read(self, answer: Answer) -> str | None:
        """Return "yes", "no", or None for unknown."""
        return PARSERS[self.parser](answer.text)

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None if the parser excludes it.

        Arms then have different denominators, so they are not tested, see `Scorer`.
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
        """Compute accuracy, precision, recall, F1, yes ratio and unknown rate.

        F1 is 2 tp / (predicted positives + positives), which is the harmonic mean of precision and
        recall if both are defined. The yes ratio is the share of predicted yes.
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
        """Return the number of questions by part; empty if editions differ."""
        return self.expected

    def appendix(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return AUROC and log-odds of the probabilities of yes."""
        parts = list(dict.fromkeys(a.item.part for answers in arms.values() for a in answers))
        if self.pooled:  # one number of all questions, not a mean over parts
            arms, parts = (
                {arm: [_drop_part(one) for one in of] for arm, of in arms.items()},
                [""],
            )
        found = probabilities(arms, references, self.totals(parts))
        if found is None:
            return Appendix()
        return Appendix(probability_text(found, self.resampled), {"p_yes": found.as_dict()})

    def extra_metrics(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return coverage, the numbers with every parser, and parser disagreements by arm."""
        parsers = {name: self.with_parser(name)._metrics_by_part(arms) for name in PARSERS}
        found = disagreements(arms, self.parser)
        return {
            "scorer": self.scorer,
            "positive": self.positive,
            "coverage": coverage(arms, self.sizes(arms))._asdict(),
            "parsers": parsers,
            "parser_disagreement": {n: d._asdict() for n, d in found.items()},
        }

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return notes on the coverage, on parser disagreements and on empty answers."""
        unknown = {
            arm: sum(self.read(answer) is None for answer in answers) / len(answers)
            for arm, answers in arms.items()
        }
        how = f"scored with the formulas of {self.scorer}; positive class: {self.positive}"
        covered = coverage_note(coverage(arms, self.sizes(arms)), unknown)
        disagreed = disagreement_notes(disagreements(arms, self.parser), self.parser)
        return [f"{how}\n{covered}", *disagreed]

    def with_parser(self, parser: str) -> YesNoTask:
        """Return the same benchmark with another parser."""
        settings = self.settings
        assert isinstance(settings, YesNoSettings)
        return type(self)(replace(settings, parser=parser, scoring=GENERATE), self.protocol)

    def _metrics_by_part(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for arm, answers in arms.items():
            groups: dict[str, dict[str, list[Answer]]] = {}
            for answer in answers:
                pictures = groups.setdefault(answer.item.part, {})
                pictures.setdefault(answer.item.unit, []).append(answer)
            for part, pictures in groups.items():
                # Counted per picture, since a benchmark may count pairs of answers.
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


def _drop_part(answer: Answer) -> Answer:
    """Return an answer whose question has no part."""
    return replace(answer, item=replace(answer.item, part=""))
