"""Figures as files, and as SVG inside of a page."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from eval.analysis.figures.panel import CARD, INK, LINE, QUIET, SERIES, Figure, Rows, house_style
from eval.files.writing import write_atomically

DPI: Final = 200
# A page's variables, by the colour that files have instead.
VARIABLES: Final = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    CARD: "var(--card)",
    SERIES[0][0]: "var(--series)",  # too dark on a dark page
}
_UNDATED: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def write_figures(folder: Path, figures: Iterable[Figure]) -> None:
    """Write each figure's CSV, PNG and SVG; the same figure gives the same bytes.

    Raises:
        EvaluationError: If a file can't be written.
    """
    for figure in figures:
        write_atomically(folder / f"{figure.name}.csv", csv_text(figure.rows))
        write_atomically(folder / f"{figure.name}.png", png_bytes(figure))
        write_atomically(folder / f"{figure.name}.svg", svg_text(figure))


def csv_text(rows: Rows) -> str:
    """Return rows as CSV; a number that is nan is an empty cell."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerows(["" if cell != cell else cell for cell in row] for row in rows)
    return content.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    with house_style():
        FigureCanvasAgg(figure.figure)
        figure.figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def svg_text(figure: Figure) -> str:
    """Return a figure as an SVG file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.StringIO()
    with house_style(**{"svg.hashsalt": figure.name}):
        FigureCanvasSVG(figure.figure)
        figure.figure.savefig(content, format="svg", metadata=_UNDATED)
    return content.getvalue()


def inline_svg(figure: Figure) -> str:
    """Return a figure as a part of a page, in the page's colours, with ids that only it has."""
    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{figure.name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    start, body = svg.split(">", 1)
    (box,) = re.findall(r'viewBox="[^"]*"', start)
    label = html.escape(f"{figure.title}. {figure.caption}")
    # Replaces the style that was cut off.
    lines = 'style="stroke-linejoin: round; stroke-linecap: butt"'
    return f'<svg {box} role="img" aria-label="{label}" {lines}>{body}'
