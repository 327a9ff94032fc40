"""Settings of HallusionBench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.errors import EvaluationError
from eval.tasks.yes_no.parsers import JUDGE, PARSERS
from eval.tasks.yes_no.settings import PartSettings


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
        for name in ("text_only", "verdicts"):
            if getattr(self, name) and self.answers is None:
                raise EvaluationError(
                    f"--{name.replace('_', '-')} is for saved answers: EAH needs a picture, and a "
                    "judge answers; pass --answers, too, or leave it out"
                )

    def parsers(self) -> Sequence[str]:
        """Return what `--parser` may be."""
        return [*PARSERS, JUDGE]
