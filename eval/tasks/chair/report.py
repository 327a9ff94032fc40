"""The CHAIR report: where arms differ, then their captions side by side, as one HTML page.

The page needs no network and no other file: pictures are inside, and its content security policy
forbids it to load anything. Captions are a model's output, so the template escapes all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.files.image_ids import ImageId
from eval.files.pictures import THUMBNAIL_SIZE, Thumbnail, thumbnail
from eval.output.contrasts import (
    BETTER,
    MANY,
    WORSE,
    Contrast,
    ContrastGroup,
    ContrastTable,
    contrast_table,
    finding,
    scaled,
    summaries,
    terms,
)
from eval.output.page import page_template, picture_size
from eval.stats.intervals import Interval
from eval.tasks.chair.images import pictures_in
from eval.tasks.chair.scoring import METRICS, ScoredArm, ScoredCaption, in_percent

if TYPE_CHECKING:
    from eval.tasks.chair.compare import Comparison
    from eval.tasks.chair.output import ChairResult

TEMPLATE: Final = "chair_report.html"
# By metric: what it is, and what a difference below and above 0 is called.
MEANINGS: Final = {
    "CHAIRs": ("of 100 captions, those with a hallucinated object", (BETTER, WORSE)),
    "CHAIRi": ("of 100 mentioned objects, those that are hallucinated", (BETTER, WORSE)),
    "Recall": ("of 100 objects in the pictures, those that captions mention", (WORSE, BETTER)),
    "Len": ("words and punctuation marks per caption", ("shorter", "longer")),
}
UNITS: Final = {"CHAIRs": "%", "CHAIRi": "%", "Recall": "%", "Len": "words"}
DIRECTIONS: Final = {BETTER: "in points; lower is better", WORSE: "in points; higher is better"}
MCNEMAR: Final = ("McNemar p", "whether chance explains how many captions the arm gains and loses: "
                  "those that only it, or only the baseline, keeps free of hallucinated objects; "
                  "the interval alone decides what is significant")  # fmt: skip
SEVERAL: Final = ("Several arms", "of 20 intervals that should include 0, about one excludes it "
                  "by chance; McNemar's p is Holm-adjusted for the number of arms, the intervals "
                  "are not adjusted")  # fmt: skip
ORDERS: Final = (("-wrong", "most hallucinated objects first"), ("id", "image id"))
TESTED: Final = "CHAIRs"  # the metric whose captions McNemar's test counts


@dataclass(frozen=True, slots=True)
class Fragment:
    """Part of a caption; `object` is None between mentions."""

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
        """Return what the page filters and sorts the picture by."""
        return {
            "id": self.image_id,
            "mentioned": self.mentioned,
            "hallucinated": self.hallucinated,
            "wrong": len(self.hallucinated),
            "differs": self.differing > 0,
        }

    @property
    def differing(self) -> int:
        """Number of objects that some captions hallucinate and others do not."""
        wrong = [{mention.object for mention in caption.hallucinated}
                 for caption in self.captions.values() if caption is not None]  # fmt: skip
        names = {name for objects in wrong for name in objects}
        return sum(any(name not in objects for objects in wrong) for name in names)


def report_page(result: ChairResult, images: Path | None = None) -> str:
    """Return scored captions, picture by picture, as one self-contained HTML page.

    Pictures in which the arms hallucinate different objects come first.

    Args:
        result: The captions; the first arm sets the order of pictures that differ equally.
        images: Folder of the pictures, to show them.
    Raises:
        EvaluationError: If the folder has no pictures.
    """
    found = sorted(_pictures(result.arms, images), key=lambda picture: -picture.differing)
    several = len(result.arms) > 1
    first = ("", "where the arms differ first" if several else "order of the captions")
    return page_template(TEMPLATE, {"fragments": _fragments}).render(
        title="CHAIR: " + ", ".join(arm.method for arm in result.arms),
        methods=[arm.method for arm in result.arms],
        findings=[*_findings(result), *(f"{sentence}." for sentence in result.sentences())],
        notes=result.notes,
        differences=_differences(result.comparisons),
        terms=_terms(result.comparisons),
        meanings=[(name, meaning) for name, (meaning, _) in MEANINGS.items()],
        metrics_header=["Arm", *((name, UNITS[name]) for name in METRICS)],
        metrics_rows=[_metrics(arm) for arm in result.arms],
        facts=result.facts,
        pictures=found,
        facets=[picture.facets() for picture in found],
        objects=[("", "any"), *_objects(found)],
        orders=[first, *ORDERS],
    )


def _findings(result: ChairResult) -> list[str]:
    """Return for each arm, or each verdict, who hallucinates less often than the baseline."""
    values = {arm.method: arm.values() for arm in result.arms}
    if len(result.comparisons) > MANY:
        rows = [_contrast(one, TESTED) for one in result.comparisons]
        return summaries(rows, TESTED, result.comparisons[0].baseline)
    found = []
    for one in result.comparisons:
        row = _contrast(one, TESTED)
        pair = f"{one.method} and {one.baseline}"
        more = "fewer" if row.found.value < 0 else "more"
        numbers = " against ".join(
            f"{in_percent(values[name][TESTED])} %" for name in (one.method, one.baseline)
        )
        found.append(
            finding(
                row,
                f"{one.method} hallucinates in {more} captions than {one.baseline}",
                f"No difference can be claimed in how often {pair} hallucinate",
                f"{TESTED} {numbers}",
                _test(one),
            )
        )
    return found


def _terms(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Return what the table of differences says."""
    rows = [_contrast(one, name) for one in comparisons for name in MEANINGS]
    return [MCNEMAR, *([SEVERAL] if len(comparisons) > 1 else []), *terms(rows)]


def _differences(comparisons: Sequence[Comparison]) -> ContrastTable:
    """Return all differences by metric, a row for each arm."""
    baselines = {one.baseline for one in comparisons}
    groups = [
        ContrastGroup(
            name,
            [_contrast(one, name) for one in comparisons],
            DIRECTIONS.get(words[0], "in words"),
        )
        for name, (_, words) in MEANINGS.items()
    ]
    arm = comparisons[0].method if len(comparisons) == 1 else "Arm"
    return contrast_table("Metric", f"{arm} minus {', '.join(baselines)}", groups)


def _contrast(comparison: Comparison, metric: str) -> Contrast:
    _, words = MEANINGS[metric]
    unit = "words" if metric == "Len" else "points"
    found = scaled(comparison.differences[metric], 100)  # Len is in hundreds of words
    detail = _test(comparison) if metric == TESTED else ""
    return Contrast(name=comparison.method, found=found, unit=unit, words=words, detail=detail)


def _test(comparison: Comparison) -> str:
    test = comparison.test
    return f"McNemar p = {comparison.p_holm:.2g}, {test.gained} captions gained, {test.lost} lost"


def _metrics(arm: ScoredArm) -> list[str | tuple[str, str]]:
    """Return an arm's row of the table of metrics."""
    alone = "no interval from one picture" if len(arm.captions) == 1 else ""
    return [
        (arm.method, f"{len(arm.captions)} captions"),
        *((in_percent(one.value), _ends(one) or alone) for one in arm.intervals.values()),
    ]


def _ends(found: Interval) -> str:
    return "" if isnan(found.low) else f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _pictures(arms: Sequence[ScoredArm], images: Path | None) -> Iterator[Picture]:
    by_id = {arm.method: {caption.image_id: caption for caption in arm.captions} for arm in arms}
    names = {} if images is None else pictures_in(images)
    ids = dict.fromkeys(image_id for found in by_id.values() for image_id in found)
    size = picture_size(len(ids), THUMBNAIL_SIZE)
    for image_id in ids:
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
            None if images is None else thumbnail(images, names.get(image_id), size),
        )


def _fragments(caption: ScoredCaption) -> Iterator[Fragment]:
    """Cut a caption where its mentions start and stop."""
    at = 0
    for mention in caption.mentions:
        yield Fragment(caption.text[at : mention.start])
        word = caption.text[mention.start : mention.stop]
        yield Fragment(word, mention.object, mention.object not in caption.truth)
        at = mention.stop
    yield Fragment(caption.text[at:])


def _objects(pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Return each object with how many pictures mention and hallucinate it, most of these first."""
    mentioned = Counter(name for picture in pictures for name in picture.mentioned)
    wrong = Counter(name for picture in pictures for name in picture.hallucinated)
    names = sorted(mentioned, key=lambda name: (-wrong[name], name))
    return [(name, f"{name}: {mentioned[name]}, hallucinated in {wrong[name]}") for name in names]
