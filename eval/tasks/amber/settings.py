"""Settings of AMBER's captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError
from eval.run.settings import RunSettings

# What says how a file of saved captions is read.
OF_FILES: Final = ("answer_key", "id_key", "partial")


@dataclass(frozen=True, slots=True)
class GenerativeSettings(RunSettings):
    """Settings of AMBER's captions, besides the common ones.

    Attributes:
        questions: Folder of AMBER's files; None for that of download_data.sh.
        similar: Table of similar words; None where only equal words are the same.
        answers: Saved captions to score without a model: a file, or a run folder.
        answer_key: Key of their rows that holds the caption; None to find it.
        id_key: Key of their rows that holds the id; None to find it.
        partial: Whether a file may lack captions.
    """

    questions: Path | None = None
    similar: Path | None = None
    answers: Path | None = None
    answer_key: str | None = None
    id_key: str | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        for name in OF_FILES:
            if getattr(self, name) and self.answers is None:
                flag = name.replace("_", "-")
                raise EvaluationError(f"--{flag} says how --answers is read; give both, or neither")
