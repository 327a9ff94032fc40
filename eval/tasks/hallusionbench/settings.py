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
        text_only: Whether to score saved answers to the questions without a picture as well.
        verdicts: File with a judge's verdicts on saved answers; None to use a parser.
    """

    text_only: bool = False
    verdicts: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        if self.verdicts is not None and self.parser not in (None, JUDGE):
            raise EvaluationError(f"--parser {self.parser} reads answers, but --verdicts replaces "
                                  "parsing; leave one of them out")  # fmt: skip
        PartSettings.__post_init__(self)
        if self.parser == JUDGE and self.verdicts is None:
            raise EvaluationError("--parser judge needs a judge's verdicts; pass them as "
                                  "--verdicts, or choose another parser")  # fmt: skip
        for flag, given, why in (
            ("--text-only", self.text_only, "EAH needs a picture"),
            ("--verdicts", self.verdicts is not None, "verdicts judge existing answers"),
        ):
            if given and self.answers is None:
                raise EvaluationError(
                    f"{flag} is only for saved answers, since {why}; pass --answers as well, or "
                    f"leave out {flag}"
                )

    def parsers(self) -> Sequence[str]:
        """Return the allowed values of `--parser`."""
        return [*PARSERS, JUDGE]


def hash_of(file: Path) -> dict[str, str]:
    """Return the entry of run.json about a file of verdicts: its SHA-256."""
    return {VERDICTS: hashlib.sha256(read_bytes(file)).hexdigest()}


def check_verdicts(run: RecordedRun, settings: RunSettings) -> None:
    """Refuse settings without the verdicts that a run was scored with.

    Naming a parser is allowed: the answers are then parsed instead.

    Raises:
        EvaluationError: If the settings name neither a parser nor the same verdicts.
    """
    recorded = run.settings.get("answers", {}).get(VERDICTS)
    if recorded is None or not isinstance(settings, HallusionSettings):
        return
    if settings.verdicts is None and settings.parser is None:
        raise EvaluationError(
            f"{run.path} was scored with a judge's verdicts; pass that file as --verdicts, or "
            "--parser word to parse the answers instead"
        )
    if settings.verdicts is not None and hash_of(settings.verdicts)[VERDICTS] != recorded:
        raise EvaluationError(
            f"{run.path} was scored with other verdicts than those in {settings.verdicts}; pass "
            "that file, or score the answers again with evaluate.py --answers"
        )
