"""Settings of saved answers, of all yes/no benchmarks, and of those of several parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.tasks.yes_no.parsers import OLD_NAMES, PARSERS

GENERATE, LIKELIHOOD = "generate", "likelihood"
SCORINGS: Final = (GENERATE, LIKELIHOOD)


# What says how a file of saved answers is read.
OF_FILES: Final = ("answer_key", "id_key", "partial")


@dataclass(frozen=True, slots=True)
class SavedSettings(RunSettings):
    """Settings of a benchmark that scores saved answers, too, besides the common ones.

    Attributes:
        answers: Saved answers to score without a model: a file, or a run folder.
        answer_key: Key of their rows that holds what the model said; None to find it.
        id_key: Key of their rows that holds the question's id; None to find it.
        partial: Whether they may answer some of the questions only.
    """

    answers: Path | None = None
    answer_key: str | None = None
    id_key: str | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        for name in OF_FILES:
            if getattr(self, name) not in (None, False) and self.answers is None:
                flag = name.replace("_", "-")
                raise EvaluationError(f"--{flag} says how --answers is read; give both, or neither")

    def check_whole(self, run: Path) -> None:
        """Refuse what says how a file is read, or what of it, beside a run folder.

        Raises:
            EvaluationError: Naming the first that is given.
        """
        for name in ("limit", *OF_FILES):
            if getattr(self, name) not in (None, False):
                raise EvaluationError(
                    f"--{name.replace('_', '-')} is for files of answers, but {run} is a run "
                    "folder, which is scored whole; leave it out"
                )


def add_saved_flags(flags: FlagParser) -> None:
    """Add the flags of saved answers to a command."""
    flags.flag("--answers", type=Path, help="score this file or run; no model is loaded")
    flags.flag("--answer-key", metavar="KEY", help="their key of the model's text (is found)")
    flags.flag("--id-key", metavar="KEY", help="their key of the question's id (is found)")
    flags.flag("--partial", action="store_true", help="they may answer some questions only")


@dataclass(frozen=True, slots=True)
class YesNoSettings(SavedSettings):
    """Settings of a yes/no benchmark, besides those of saved answers.

    Attributes:
        parser: How answers are read; None for the protocol's.
        scoring: "generate" reads the text that a model says; "likelihood" takes the likelier of
            yes and no at the first token, from one forward pass.
    """

    parser: str | None = None
    scoring: str = GENERATE

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        SavedSettings.__post_init__(self)
        if self.parser is not None:
            object.__setattr__(self, "parser", OLD_NAMES.get(self.parser, self.parser))
        if self.parser is not None and self.parser not in self.parsers():
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, self.parsers())}"
            )
        if self.scoring not in SCORINGS:
            raise EvaluationError(
                f"scoring {self.scoring!r} is unknown: {nearest(self.scoring, SCORINGS)}"
            )
        if self.scoring == LIKELIHOOD:
            self._check_likelihood()

    def parsers(self) -> Sequence[str]:
        """Return what `--parser` may be."""
        return list(PARSERS)

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


@dataclass(frozen=True, slots=True)
class PartSettings(YesNoSettings):
    """Settings of a yes/no benchmark of several parts.

    Attributes:
        part: Parts to ask, or presets, which are several; empty for all.
        questions: Folder of the question files; None for that of scripts/download_data.sh.
    """

    part: tuple[str, ...] = ()
    questions: Path | None = None
