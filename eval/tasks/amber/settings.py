"""Settings of AMBER's captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.tasks.yes_no.settings import SavedSettings


@dataclass(frozen=True, slots=True)
class GenerativeSettings(SavedSettings):
    """Settings of AMBER's captions, besides those of saved answers.

    Attributes:
        questions: Folder of AMBER's files; None for the folder of scripts/data/download.sh.
        similar: Table of similar words; None if only equal words match.
    """

    questions: Path | None = None
    similar: Path | None = None
