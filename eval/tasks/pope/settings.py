"""Settings of a POPE evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.run.settings import RunSettings
from eval.tasks.pope.questions import POPE_TYPES
from eval.tasks.pope.scoring import PARSERS


@dataclass(frozen=True, slots=True)
class PopeSettings(RunSettings):
    """Settings of a POPE evaluation, besides the common ones.

    Attributes:
        pope_type: Types of questions: random, popular, adversarial.
        pope_path: Folder of `coco_pope_<type>.json`, or one question file.
        parser: How answers are read; None for the protocol's.
        answers: Saved answers to score without a model.
        build_from: COCO instances to build the question files from.
        build_images: Pictures to ask about when building.
    """

    pope_type: tuple[str, ...] = ("random",)
    pope_path: Path | None = None
    parser: str | None = None
    answers: Path | None = None
    build_from: Path | None = None
    build_images: int = 500

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if "all" in self.pope_type:
            object.__setattr__(self, "pope_type", POPE_TYPES)
        for name in self.pope_type:
            if name not in POPE_TYPES:
                raise EvaluationError(
                    f"pope_type {name!r} is unknown: {nearest(name, [*POPE_TYPES, 'all'])}"
                )
        if self.parser is not None and self.parser not in PARSERS:
            raise EvaluationError(
                f"parser {self.parser!r} is unknown: {nearest(self.parser, PARSERS)}"
            )
        if self.build_images < 1:
            raise EvaluationError(f"build_images={self.build_images}, but at least 1 is needed")

    def types(self) -> str:
        """Return the question types as a part of a folder's name."""
        return "all" if self.pope_type == POPE_TYPES else "+".join(self.pope_type)
