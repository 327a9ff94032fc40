"""Settings of HallusionBench."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eval.errors import EvaluationError
from eval.files.text import read_bytes
from eval.run.settings import RunSettings
from eval.tasks.yes_no.parsers import JUDGE, PARSERS
from eval.tasks.yes_no.settings import PartSettings

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

VERDICTS: Final = "verdicts"  # in run.json, and the setting's name


@dataclass(frozen=True, slots=True)
class HallusionSettings(PartSettings):
    """Settings of HallusionBench, besides those of all yes/no benchmarks of several parts.

    Attributes:
        text_only: Whether saved answers to the questions without a picture are scored, too.
        verdicts: The benchmark's file with a judge's verdicts on saved answers; None for the rule.
    """

    text_only: bool = False
    verdicts: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        if self.verdicts is not None and self.parser not in (None, JUDGE):
            raise EvaluationError(f"--parser {self.parser} reads answers, but --verdicts has read "
                                  "them already; leave one of them out")  # fmt: skip
        PartSettings.__post_init__(self)
        if self.parser == JUDGE and self.verdicts is None:
            raise EvaluationError("--parser judge takes verdicts that a judge has given; pass them "
                                  "as --verdicts, or another parser")  # fmt: skip
        for flag, given, why in (
            ("--text-only", self.text_only, "EAH needs a picture"),
            ("--verdicts", self.verdicts is not None, "a judge has read them"),
        ):
            if given and self.answers is None:
                raise EvaluationError(
                    f"{flag} is for saved answers, since {why}; pass --answers, too, or leave "
                    f"{flag} out"
                )

    def parsers(self) -> Sequence[str]:
        """Return what `--parser` may be."""
        return [*PARSERS, JUDGE]


def hash_of(file: Path) -> dict[str, str]:
    """Return what run.json has of a file of verdicts."""
    return {VERDICTS: hashlib.sha256(read_bytes(file)).hexdigest()}


def check_verdicts(run: RecordedRun, settings: RunSettings) -> None:
    """Refuse settings without the verdicts that a run was scored with.

    A parser that is named asks for another reading, and is taken.

    Raises:
        EvaluationError: If the settings name none, or others.
    """
    recorded = run.settings.get("answers", {}).get(VERDICTS)
    if recorded is None or not isinstance(settings, HallusionSettings):
        return
    if settings.verdicts is None and settings.parser is None:
        raise EvaluationError(
            f"{run.path} was scored with a judge's verdicts; pass that file as --verdicts, or "
            "--parser word to read the answers by rule"
        )
    if settings.verdicts is not None and hash_of(settings.verdicts)[VERDICTS] != recorded:
        raise EvaluationError(
            f"{run.path} was scored with other verdicts than those in {settings.verdicts}; pass "
            "that file, or score the answers anew with evaluate.py --answers"
        )
