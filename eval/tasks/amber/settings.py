"""Settings of AMBER's captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.tasks.yes_no.settings import SavedSettings


@dataclass(frozen=True, slots=True)
class GenerativeSettings(SavedSettings):
    """Settings of AMBER's captions, besides those of saved answers.

    Attributes:
        questions: Folder of AMBER's files; None for that of download_data.sh.
        similar: Table of similar words; None where only equal words are the same.
    """

    questions: Path | None = None
    similar: Path | None = None
