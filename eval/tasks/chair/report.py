"""The CHAIR report: captions side by side with what CHAIR found in them, as one HTML page.

The page needs no network and no other file: pictures are inside, and its content security policy
forbids it to load anything. Captions are a model's output, so the template escapes all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.files.image_ids import ImageId
from eval.files.pictures import Thumbnail, thumbnail
from eval.output.page import TEMPLATES, page_template
from eval.tasks.chair.images import pictures_in
from eval.tasks.chair.scoring import ScoredArm, ScoredCaption

if TYPE_CHECKING:
    from eval.tasks.chair.output import ChairResult

TEMPLATE: Final = TEMPLATES / "chair_report.html"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a caption; `object` is None between mentions."""

    text: str
    object: str | None = None
    hallucinated: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """One card of the page.

    Attributes:
        captions: By method; None where a method has none of this picture.
        truth: Objects that are in the picture.
        mentioned: Objects that any arm names.
        hallucinated: Those of them that are not in the picture.
        thumbnail: None if the page shows no pictures.
    """

    image_id: ImageId
    captions: dict[str, ScoredCaption | None]
    truth: list[str]
    mentioned: list[str]
    hallucinated: list[str]
    thumbnail: Thumbnail | None

    def facets(self) -> dict[str, Any]:
        """Return what the page's filters know of the picture."""
        wrong = [{mention.object for mention in caption.hallucinated}
                 for caption in self.captions.values() if caption is not None]  # fmt: skip
        differs = any(objects != wrong[0] for objects in wrong)
        return {"mentioned": self.mentioned, "hallucinated": self.hallucinated, "differs": differs}


def report_page(result: ChairResult, images: Path | None = None) -> str:
    """Return scored captions, picture by picture, as one self-contained HTML page.

    Args:
        result: The captions; the first arm sets the order of the pictures.
        images: Folder of the pictures, to show them.
    Raises:
        EvaluationError: If the folder has no pictures.
    """
    filters = {"pieces": _pieces}
    pictures = list(_pictures(result.arms, images))
    return page_template(TEMPLATE, filters).render(
        methods=[arm.method for arm in result.arms],
        rows=[(arm.method, len(arm.captions), arm.intervals) for arm in result.arms],
        comparisons=result.comparisons,
        sentences=[*result.sentences(), *result.notes],
        facts=result.facts,
        pictures=pictures,
        facets=[picture.facets() for picture in pictures],
        objects=_objects(pictures),
    )


def _pictures(arms: Sequence[ScoredArm], images: Path | None) -> Iterator[Picture]:
    by_id = {arm.method: {caption.image_id: caption for caption in arm.captions} for arm in arms}
    names = {} if images is None else pictures_in(images)
    for image_id in dict.fromkeys(image_id for found in by_id.values() for image_id in found):
        captions = {method: found.get(image_id) for method, found in by_id.items()}
        truth = next(caption.truth for caption in captions.values() if caption is not None)
        mentioned = {mention.object for caption in captions.values() if caption is not None
                     for mention in caption.mentions}  # fmt: skip
        yield Picture(
            image_id,
            captions,
            sorted(truth),
            sorted(mentioned),
            sorted(mentioned - truth),
            None if images is None else thumbnail(images, names.get(image_id)),
        )


def _pieces(caption: ScoredCaption) -> Iterator[Piece]:
    """Cut a caption where its mentions start and stop."""
    at = 0
    for mention in caption.mentions:
        yield Piece(caption.text[at : mention.start])
        word = caption.text[mention.start : mention.stop]
        yield Piece(word, mention.object, mention.object not in caption.truth)
        at = mention.stop
    yield Piece(caption.text[at:])


def _objects(pictures: Sequence[Picture]) -> list[tuple[str, int, int]]:
    """Return each object with the pictures that mention and hallucinate it, most of these first."""
    mentioned = Counter(name for picture in pictures for name in picture.mentioned)
    wrong = Counter(name for picture in pictures for name in picture.hallucinated)
    rows = [(name, count, wrong[name]) for name, count in mentioned.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))
