"""The CHAIR report: captions side by side with what CHAIR found in them, as one HTML page.

The page needs no network and no other file: pictures are inside, and its content security policy
forbids it to load anything. Captions are a model's output, so the template escapes all of them.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Final

from eval.files.thumbnails import Thumbnail, thumbnail
from eval.files.writing import write_atomically
from eval.output.page import TEMPLATES, page_template
from eval.stats.intervals import Interval
from eval.tasks.chair.compare import Comparison
from eval.tasks.chair.images import pictures_in
from eval.tasks.chair.scoring import ScoredArm, ScoredCaption

TEMPLATE: Final = TEMPLATES / "chair_report.html"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a caption; `object` is None between mentions."""

    text: str
    object: str | None = None
    hallucinated: bool = False


@dataclass(frozen=True, slots=True)
class Facets:
    """What the page's filters know of a picture: objects that any arm names."""

    mentioned: list[str]
    hallucinated: list[str]
    differs: bool  # Whether the arms hallucinate different objects.


@dataclass(frozen=True, slots=True)
class Picture:
    """One card of the page.

    Attributes:
        captions: By method; None where a method has none of this picture.
        truth: Objects that are in the picture.
        thumbnail: None if the page shows no pictures.
    """

    image_id: int
    captions: dict[str, ScoredCaption | None]
    truth: list[str]
    facets: Facets
    thumbnail: Thumbnail | None


def write_report(
    path: Path,
    arms: Sequence[ScoredArm],
    comparisons: Sequence[Comparison],
    *,
    facts: Mapping[str, str],
    images: Path | None = None,
) -> None:
    """Write scored captions, picture by picture, as one self-contained HTML page.

    Args:
        path: The file to write.
        arms: One arm, or several of the same pictures; the first sets the order.
        comparisons: Of arms with the baseline; their sentences stand below the metrics.
        facts: What the numbers depend on, texts by label.
        images: Folder of the pictures, to show them.
    Raises:
        EvaluationError: If the folder has no pictures, or the page can't be written.
    """
    filters = {
        "interval": _interval,
        "percent": _percent,
        "pieces": _pieces,
        "sha256": _sha256,
    }
    pictures = list(_pictures(arms, images))
    page = page_template(TEMPLATE, filters).render(
        methods=[arm.method for arm in arms],
        rows=[(arm.method, len(arm.captions), arm.intervals()) for arm in arms],
        sentences=[line for comparison in comparisons for line in comparison.sentences()],
        facts=facts,
        pictures=pictures,
        facets=[asdict(picture.facets) for picture in pictures],
        objects=_objects([picture.facets for picture in pictures]),
    )
    # A caption read from JSON may hold half a surrogate pair, which UTF-8 has no bytes for.
    write_atomically(path, page.encode("utf-8", errors="replace"))


def _pictures(arms: Sequence[ScoredArm], images: Path | None) -> Iterator[Picture]:
    by_id = [{caption.image_id: caption for caption in arm.captions} for arm in arms]
    names = {} if images is None else pictures_in(images)
    for image_id in dict.fromkeys(image_id for captions in by_id for image_id in captions):
        found = [captions.get(image_id) for captions in by_id]
        captions = [caption for caption in found if caption is not None]
        yield Picture(
            image_id,
            dict(zip([arm.method for arm in arms], found, strict=True)),
            sorted(captions[0].truth),
            _facets(captions),
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


def _facets(captions: Sequence[ScoredCaption]) -> Facets:
    mentioned = {mention.object for caption in captions for mention in caption.mentions}
    hallucinated = [{mention.object for mention in caption.hallucinated} for caption in captions]
    differs = any(objects != hallucinated[0] for objects in hallucinated)
    return Facets(sorted(mentioned), sorted(set().union(*hallucinated)), differs)


def _objects(facets: Sequence[Facets]) -> list[tuple[str, int, int]]:
    """Return each object with the pictures that mention and hallucinate it, most of these first."""
    mentioned = Counter(name for row in facets for name in row.mentioned)
    wrong = Counter(name for row in facets for name in row.hallucinated)
    rows = [(name, count, wrong[name]) for name, count in mentioned.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))


def _percent(fraction: float) -> str:
    """Return a share in percent; Len, in hundreds of words, becomes words by the same factor."""
    return f"{100 * fraction:.1f}"


def _interval(found: Interval) -> str:
    if isnan(found.low):
        return "no interval from one picture"
    return f"{_percent(found.low)} to {_percent(found.high)}"


def _sha256(text: str) -> str:
    """Return a script's hash as a content security policy states it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
