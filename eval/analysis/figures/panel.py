"""A small figure with its numbers, in one style, independent of the user's matplotlib settings."""

from __future__ import annotations

import importlib.util
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from eval.errors import EvaluationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Rows = tuple[tuple[Any, ...], ...]

# The light colours of page.css: a page replaces them by its variables.
INK: Final = "#1d1f21"
QUIET: Final = "#62666b"
LINE: Final = "#deded9"
CARD: Final = "#ffffff"
# Okabe and Ito's colours, most contrast first; markers and dashes distinguish them in grey.
SERIES: Final = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#cc79a7", "D", ":"),
    ("#e69f00", "v", (0, (5, 1, 1, 1, 1, 1))),
    (QUIET, "P", (0, (1, 1))),
)
HEAT: Final = "viridis"
SIZE: Final = (4.0, 3.0)  # inches
TITLE_WIDTH: Final = 44  # characters
TICKS: Final = 8
MOST_LETTERS: Final = 80  # of a part of a file's name; names have several, of 255 letters
STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.facecolor": CARD,
    "figure.facecolor": CARD,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",  # a browser may lack the font
    "text.color": INK,
    "text.parse_math": False,  # names may contain dollar signs
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with all that it shows.

    Attributes:
        name: Of its files, without the ending.
        title: One line.
        caption: What one sees, in sentences.
        figure: The drawing.
        rows: A header and the numbers that are drawn; nan where nothing is.
    """

    name: str
    title: str
    caption: str
    figure: Drawing
    rows: Rows


def check_matplotlib() -> None:
    """Refuse to start without matplotlib, before anything costly.

    Raises:
        EvaluationError: With the command that installs it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError(
            "figures are drawn with matplotlib, which is not installed: "
            "pip install 'matplotlib>=3.8' (it is in the extra: pip install '.[plots]')"
        )


@contextmanager
def house_style(**settings: object) -> Iterator[None]:
    """Draw and write in one style; matplotlib's own settings are as before afterwards."""
    check_matplotlib()
    from matplotlib import style

    with style.context(["default", {**STYLE, **settings}]), warnings.catch_warnings():
        # A name in a script that the font lacks is whole in the caption and in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_panel(
    title: str, rows: int = 1, size: tuple[float, float] = SIZE
) -> tuple[Drawing, list[Axes]]:
    """Return a drawing with axes below each other; a long title takes several lines."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=size, layout="constrained")
    drawing.suptitle(
        textwrap.fill(title, TITLE_WIDTH), x=0.02, ha="left", size=STYLE["axes.titlesize"]
    )
    return drawing, list(drawing.subplots(rows, 1, sharex=True, sharey=True, squeeze=False)[:, 0])


def thin_ticks(count: int) -> slice:
    """Return which of so many positions have a label."""
    return slice(None, None, max(1, ceil(count / TICKS)))


def layer_axis(axes: Axes, layers: Sequence[int]) -> None:
    """Name the horizontal axis and give it whole numbers."""
    shown = list(layers)[thin_ticks(len(layers))]
    axes.set_xticks(shown, [str(layer) for layer in shown])
    axes.set_xlabel("layer (index, from 0)")
    if not axes.has_data() and layers:  # ticks alone would cut the last layers
        axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)


def share_axis(axes: Axes, label: str, *, points: bool = False) -> None:
    """Name the vertical axis of shares, which are written in percent or in points."""
    from matplotlib.ticker import FuncFormatter

    unit = "" if points else " %"
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}{unit}"))
    axes.set_ylabel(label)
    axes.grid(visible=True, axis="y")


def legend_above(axes: Axes, order: Sequence[str] = ()) -> None:
    """Put the legend between title and axes, where it hides no data.

    Args:
        axes: Whose.
        order: Labels, those that are drawn in this order; without any, as they were drawn.
    """
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [label for label in order if label in drawn] or list(drawn)
    axes.legend(
        [drawn[label] for label in labels], labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0),
        borderaxespad=0.2, ncols=2, columnspacing=1.2, handletextpad=0.5, handlelength=2.2,
    )  # fmt: skip


def slug(text: str) -> str:
    """Return a text as a part of a file's name, cut where a file system might refuse it."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:MOST_LETTERS].strip("-.") or "unnamed"
