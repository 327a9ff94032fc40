"""Answers that a file holds, whoever gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eval.files.answers import Answer, Item

NO_MODEL: Final = "saved"


@dataclass(frozen=True, slots=True)
class SavedAnswers:
    """Answers that a file holds.

    Attributes:
        model: Whose they are; NO_MODEL where the file doesn't say.
        arms: Answers by arm, in the order of the questions.
        facts: The file's name, SHA-256 and layout, and the keys that were read.
        settings: What is known of how they were made, as run.json has it.
    """

    model: str
    arms: Mapping[str, Sequence[Answer]]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def asked(self) -> list[Item]:
        """Return the questions that are answered, which a file may be allowed to lack some of."""
        return [answer.item for answer in next(iter(self.arms.values()))]
