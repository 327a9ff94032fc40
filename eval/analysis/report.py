"""What the page of `eval/sinks.py` shows, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from eval.analysis.ablation import Ablation
from eval.analysis.claim import Claim
from eval.analysis.figures.ablations import ablation_figures
from eval.analysis.figures.claims import claim_figures
from eval.analysis.figures.maps import map_figures
from eval.analysis.figures.panel import Figure
from eval.analysis.figures.pictures import picture_figure
from eval.analysis.maps import HeadMap

if TYPE_CHECKING:
    from eval.analysis.picture import PictureView


@dataclass(frozen=True, slots=True)
class SinkReport:
    """All that was found.

    Attributes:
        title: Heading of the page.
        maps: One a model.
        claims: One a model; empty if no answers were asked for.
        ablations: One a model and metric.
        pictures: Pictures to step through.
        facts: What the numbers depend on, by name.
        notes: Sentences that belong to the finding.
    """

    title: str
    maps: Sequence[HeadMap]
    claims: Sequence[Claim] = ()
    ablations: Sequence[Ablation] = ()
    pictures: Sequence[PictureView] = ()
    facts: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """A report's figures, in the order of its parts; names differ from each other.

    Attributes:
        maps: By model.
        claims: All models' first, if there are several.
        ablations: By model, metric and setting.
        pictures: By picture.
    """

    maps: tuple[tuple[Figure, ...], ...]
    claims: tuple[Figure, ...]
    ablations: tuple[Figure, ...]
    pictures: tuple[Figure, ...]

    def all(self) -> list[Figure]:
        """Return all of them, for `write_figures`."""
        maps = [figure for figures in self.maps for figure in figures]
        return [*maps, *self.claims, *self.ablations, *self.pictures]


def report_figures(report: SinkReport) -> ReportFigures:
    """Draw all figures of a report.

    Raises:
        EvaluationError: If matplotlib is not installed.
    """
    taken: set[str] = set()

    def named(figures: Sequence[Figure]) -> tuple[Figure, ...]:
        return tuple(replace(one, name=_free_name(one.name, taken)) for one in figures)

    return ReportFigures(
        tuple(named(map_figures(found)) for found in report.maps),
        named(claim_figures(report.claims)),
        named(ablation_figures(report.ablations)),
        named([picture_figure(view) for view in report.pictures]),
    )


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name, with a number if it is taken, and take it."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}-{count}"
    taken.add(free)
    return free
