"""Settings of captioning for CHAIR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.errors import EvaluationError
from eval.run.settings import RunSettings


@dataclass(frozen=True, slots=True)
class ChairSettings(RunSettings):
    """Settings of captioning for CHAIR, besides the common ones.

    Attributes:
        question: What the model is asked; None for the protocol's question.
        image_ids: File of the image ids to caption, in order; None for a sample of the folder.
        num_images: Size of the sample; None for 500.
    """

    question: str | None = None
    image_ids: Path | None = None
    num_images: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.question is not None and not self.question.strip():
            raise EvaluationError(f"question={self.question!r} is empty; leave it out or ask")
        if self.num_images is not None and self.num_images < 1:
            raise EvaluationError(f"num_images={self.num_images}, but at least 1 is needed")
        if self.image_ids is not None and self.num_images is not None:
            raise EvaluationError(
                f"image_ids={self.image_ids} names the pictures, so num_images={self.num_images} "
                "can't choose them; give one of the two (limit cuts a list)"
            )
