"""The page of `eval/sinks.py`: the finding first, then maps, claim, ablations and pictures.

It needs no network and no other file: pictures are inside, and its content security policy forbids
it to load anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from eval.analysis.figures.files import inline_svg
from eval.analysis.figures.panel import Figure
from eval.analysis.maps import HeadMap
from eval.analysis.report import ReportFigures, SinkReport, report_figures
from eval.analysis.viewer import viewer_data
from eval.files.pictures import data_url
from eval.output.page import page_template

TEMPLATE: Final = "sinks.html"
SEEN_SIZE: Final = (480, 480)  # largest picture in the page, in pixels
SEEN_QUALITY: Final = 80


@dataclass(frozen=True, slots=True)
class MapSection:
    """One model's maps.

    Attributes:
        model: The model.
        sentence: What they show.
        first: Figures of the first threshold, and of attention.
        others: Those of the other thresholds.
    """

    model: str
    sentence: str
    first: tuple[Figure, ...]
    others: tuple[Figure, ...]


def sinks_page(report: SinkReport, figures: ReportFigures | None = None) -> str:
    """Return a report as one self-contained HTML page.

    Args:
        report: What was found.
        figures: Its figures, if they are drawn already.
    Raises:
        EvaluationError: If matplotlib is not installed.
    """
    drawn = report_figures(report) if figures is None else figures
    sections = [_section(*one) for one in zip(report.maps, drawn.maps, strict=True)]
    filters = {"svg": _svg, "cells": _cells}
    return page_template(TEMPLATE, filters).render(
        title=report.title,
        findings=[one.sentence() for one in report.claims] or [one.sentence for one in sections],
        notes=report.notes,
        sections=sections,
        claims=drawn.claims,
        ablations=drawn.ablations,
        pictures=[
            {
                "view": view,
                "seen": data_url(view.seen, SEEN_SIZE, SEEN_QUALITY),
                "data": viewer_data(view),
            }
            for view in report.pictures
        ],
        facts=report.facts,
    )


def _section(found: HeadMap, figures: tuple[Figure, ...]) -> MapSection:
    """Put the figures of the first threshold and of attention before those of others."""
    each = (len(figures) - 1) // len(found.thresholds)
    first, others = figures[:each], figures[each:-1]
    return MapSection(found.model, found.sentence(), (first[0], figures[-1], *first[1:]), others)


def _svg(figure: Figure) -> Markup:
    return Markup(inline_svg(figure))  # matplotlib's, with an escaped label


def _cells(figure: Figure) -> list[list[str]]:
    """Return a figure's numbers as rows of a table, without the header."""
    return [[_number(cell) for cell in row] for row in figure.rows[1:]]


def _number(cell: Any) -> str:
    """Return a number for a table, and a dash where there is none."""
    if not isinstance(cell, float):
        return {True: "yes", False: "no"}[cell] if isinstance(cell, bool) else str(cell)
    return "-" if cell != cell else f"{cell:.4g}"
