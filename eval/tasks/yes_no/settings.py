"""Settings for saved answers, for all yes/no benchmarks, and for those with several parts."""

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


# Settings that decide how a file of saved answers is read.
OF_FILES: Final = ("answer_key", "id_key", "partial")


@dataclass(frozen=True, slots=True)
class SavedSettings(RunSettings):
    """Settings of a benchmark that can score saved answers, besides the common ones.

    Attributes:
        answers: Saved answers to score without a model: a file, or a run folder.
        answer_key: Key of the model's answer in their rows; None to find it.
        id_key: Key of the question's id in their rows; None to find it.
        partial: Whether they may answer only some of the questions.
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
                raise EvaluationError(
                    f"--{flag} is only used with --answers; pass both, or leave out --{flag}"
                )

    def check_whole(self, run: Path) -> None:
        """Refuse flags for files of answers if `--answers` is a run folder.

        Raises:
            EvaluationError: If one is given, naming the first.
        """
        for name in ("limit", *OF_FILES):
            if getattr(self, name) not in (None, False):
                raise EvaluationError(
                    f"--{name.replace('_', '-')} is only for files of answers, but {run} is a run "
                    "folder, which is scored whole; leave it out"
                )


def add_saved_flags(flags: FlagParser) -> None:
    """Add the flags for saved answers to a command."""
    flags.flag("--answers", type=Path,
               help="file of answers, or run folder, to score without a model")  # fmt: skip
    flags.flag("--answer-key", metavar="KEY",
               help="with --answers: key of the model's answer (default: detected)")  # fmt: skip
    flags.flag("--id-key", metavar="KEY",
               help="with --answers: key of the question's id (default: detected)")  # fmt: skip
    flags.flag("--partial", action="store_true",
               help="with --answers: allow questions without an answer")  # fmt: skip


@dataclass(frozen=True, slots=True)
class YesNoSettings(SavedSettings):
    """Settings of a yes/no benchmark, besides those of saved answers.

    Attributes:
        parser: Parser of the answers; None for the protocol's.
        scoring: "generate" parses the generated text; "likelihood" takes the more likely of yes and
            no at the first token, from one forward pass.
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
        """Return the allowed values of `--parser`."""
        return list(PARSERS)

    def _check_likelihood(self) -> None:
        """Refuse settings that need generated text.

        Raises:
            EvaluationError: If one is given, naming the first.
        """
        for flag, given, why in (
            ("--answers", self.answers is not None, "the answers already exist"),
            ("--sample", self.sample, "nothing is sampled"),
            ("--beam", self.beam > 1, "beams do not change the first token's probability"),
            ("--max-new-tokens", self.max_new_tokens is not None, "nothing is generated"),
            ("--parser", self.parser is not None, "there is no text to parse"),
        ):
            if given:
                raise EvaluationError(
                    f"--scoring likelihood can't be combined with {flag}: {why}; leave one of them "
                    "out"
                )


@dataclass(frozen=True, slots=True)
class PartSettings(YesNoSettings):
    """Settings of a yes/no benchmark with several parts.

    Attributes:
        part: Parts to ask, or presets (groups of parts); empty for all.
        questions: Folder of the question files; None for that of scripts/data/download.sh.
    """

    part: tuple[str, ...] = ()
    questions: Path | None = None
