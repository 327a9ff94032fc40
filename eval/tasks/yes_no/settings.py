"""Settings that all yes/no benchmarks have, and those of benchmarks of several parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.run.settings import RunSettings
from eval.tasks.yes_no.parsers import OLD_NAMES, PARSERS

GENERATE, LIKELIHOOD = "generate", "likelihood"
SCORINGS: Final = (GENERATE, LIKELIHOOD)


@dataclass(frozen=True, slots=True)
class YesNoSettings(RunSettings):
    """Settings of a yes/no benchmark, besides the common ones.

    Attributes:
        parser: How answers are read; None for the protocol's.
        answers: Saved answers to score without a model: a file, or a run folder.
        answer_key: Key of their rows that holds what the model said; None to find it.
        id_key: Key of their rows that holds the question's id; None to find it.
        partial: Whether they may answer some of the questions only.
        scoring: "generate" reads the text that a model says; "likelihood" takes the likelier of
            yes and no at the first token, from one forward pass.
    """

    parser: str | None = None
    answers: Path | None = None
    answer_key: str | None = None
    id_key: str | None = None
    partial: bool = False
    scoring: str = GENERATE

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.parser is not None:
            object.__setattr__(self, "parser", OLD_NAMES.get(self.parser, self.parser))
        if self.parser is not None and self.parser not in self.parsers():
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, self.parsers())}"
            )
        for name in ("answer_key", "id_key", "partial"):
            if getattr(self, name) not in (None, False) and self.answers is None:
                flag = name.replace("_", "-")
                raise EvaluationError(f"--{flag} says how --answers is read; give both, or neither")
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
