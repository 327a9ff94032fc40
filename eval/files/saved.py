"""Answers read from a file, from any model or tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eval.files.answers import Answer, Item

NO_MODEL: Final = "saved"


@dataclass(frozen=True, slots=True)
class SavedAnswers:
    """Answers read from a file.

    Attributes:
        model: The model that gave them; NO_MODEL if the file does not name it.
        arms: Answers by arm, in the order of the questions.
        facts: The file's name, SHA-256 and layout, and the keys that were read.
        settings: Known settings of their generation, in the format of run.json.
    """

    model: str
    arms: Mapping[str, Sequence[Answer]]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def asked(self) -> list[Item]:
        """Return the answered questions; with --partial a file may lack some."""
        return [answer.item for answer in next(iter(self.arms.values()))]
