"""What all yes/no benchmarks share: counts, and the metrics of POPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.saved import SavedAnswers
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.stats.intervals import Array, ratio
from eval.stats.metric import Metric
from eval.tasks.base import Appendix, Task
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.disagreement import disagreement_notes, disagreements
from eval.tasks.yes_no.parsers import LEAVE_OUT, PARSERS
from eval.tasks.yes_no.probability import probabilities
from eval.tasks.yes_no.probability_table import probability_text

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

# What each answer adds to the counts; the cells are (prediction, label). None is unknown.
CELLS: Final = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
GENERATE, LIKELIHOOD = "generate", "likelihood"
SCORINGS: Final = (GENERATE, LIKELIHOOD)
COUNTS: Final = ("total", "tp", "fp", "tn", "fn", "unknown", "positives", "asked")


@dataclass(frozen=True, slots=True)
class YesNoSettings(RunSettings):
    """Settings of a yes/no benchmark, besides the common ones.

    Attributes:
        parser: How answers are read; None for the protocol's.
        answers: Saved answers to score without a model: a file, or a run folder.
        answer_key: Key of their rows that holds what the model said; None to find it.
        id_key: Key of their rows that holds the question's id; None to find it.
        scoring: "generate" reads the text that a model says; "likelihood" takes the likelier of
            yes and no at the first token, from one forward pass.
    """

    parser: str | None = None
    answers: Path | None = None
    answer_key: str | None = None
    id_key: str | None = None
    scoring: str = GENERATE

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.parser is not None and self.parser not in PARSERS:
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, PARSERS)}"
            )
        for name in ("answer_key", "id_key"):
            if getattr(self, name) is not None and self.answers is None:
                flag = name.replace("_", "-")
                raise EvaluationError(f"--{flag} says how --answers is read; give both, or neither")
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
            ("--answers", self.answers is not None, "the answers are there already"),
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

    An unknown answer is wrong: it counts against accuracy and recall, and is no predicted yes. Only
    the parsers in LEAVE_OUT leave it out of all numbers but the rate of unknown answers.
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
        """Add the flags of how answers are read, and of saved ones."""
        flags.flag("--parser", help=f"how answers are read: {', '.join(PARSERS)} (the protocol's)")
        flags.flag("--scoring", help=f"{', or '.join(SCORINGS)}: yes or no by p(yes) ({GENERATE})")
        flags.flag("--answers", type=Path, help="score this file or run; no model is loaded")
        flags.flag("--answer-key", metavar="KEY", help="their key of the model's text (is found)")
        flags.flag("--id-key", metavar="KEY", help="their key of the question's id (is found)")

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
            return read_answers(path, items, answer_key=settings.answer_key, id_key=settings.id_key)
        except EvaluationError as error:
            if settings.limit is None:
                raise
            raise EvaluationError(
                f"{error} (--limit {settings.limit} keeps the first {settings.limit} questions of "
                "each part only: leave it out if the file answers all)"
            ) from error

    def check_run(self, run: RecordedRun) -> None:
        """Refuse what says how a file is read beside a run folder, which is scored whole."""
        for name in ("limit", "answer_key", "id_key"):
            if getattr(self.settings, name) is not None:
                raise EvaluationError(
                    f"--{name.replace('_', '-')} is for files of answers, but {run.path} is a run "
                    "folder, which is scored whole; leave it out"
                )

    def read(self, answer: Answer) -> str | None:
        """Return "yes", "no", or None for unknown."""
        return PARSERS[self.parser](answer.text)

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None where the parser leaves it out.

        Arms then have different denominators, so that they are not tested, see `Scorer`.
        """
        said = self.read(answer)
        return None if said is None and self.parser in LEAVE_OUT else said == answer.item.label

    def counts(self, answers: Sequence[Answer]) -> list[int]:
        """Return the sums of COUNTS over answers."""
        cells = [(self.read(answer), answer.item.label) for answer in answers]
        unknown = sum(said is None for said, _ in cells)
        if self.parser in LEAVE_OUT:
            cells = [cell for cell in cells if cell[0] is not None]
        return [
            len(cells),
            *(cells.count(cell) for cell in CELLS),
            unknown,
            sum(label == "yes" for _, label in cells),
            len(answers),
        ]

    def numbers(self, sums: Array) -> Array:
        """Return accuracy, precision, recall, F1, yes ratio and unknown rate.

        F1 is 2 tp / (predicted yes + labelled yes), which is the harmonic mean of precision and
        recall where both are defined. The yes ratio is that of the predictions.
        """
        total, tp, fp, tn, _, unknown, positives, asked = sums
        return np.stack(
            [
                ratio(tp + tn, total),
                ratio(tp, tp + fp),
                ratio(tp, positives),
                ratio(2 * tp, tp + fp + positives),
                ratio(tp + fp, total),
                ratio(unknown, asked),
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
        """Return counts and metrics under every parser, and where parsers disagree, by arm."""
        parsers = {name: self._with(name)._plain(arms) for name in PARSERS}
        found = disagreements(arms, self.parser)
        return {
            "parsers": parsers,
            "parser_disagreement": {n: d._asdict() for n, d in found.items()},
        }

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return what parsers disagree on, and how many answers are empty."""
        return disagreement_notes(disagreements(arms, self.parser), self.parser)

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
