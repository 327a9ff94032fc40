"""A picture next to what heads see of it, before and after EAH."""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.analysis.figures.panel import STYLE, Figure, Rows, house_style, slug

if TYPE_CHECKING:
    from eval.analysis.picture import LayerView, PictureView

TITLE_WIDTH: Final = 100  # characters


class _Map(NamedTuple):
    """One head's map, before or after."""

    title: str
    values: NDArray[np.float32]
    sinks: NDArray[np.bool_]


def picture_figure(view: PictureView) -> Figure:
    """Return a picture with the shared head before EAH, and another head before and after it."""
    from eah.overlay import Panel, draw

    layer = next(one for one in view.layers if one.layer == view.target)
    maps = _maps(layer)
    title = f"{view.model}: {view.image}, layer {layer.layer}"
    # Four titles share one row.
    with house_style(**{"font.size": 8, "axes.titlelocation": "center"}):
        drawing = draw(view.seen, view.grid, [Panel(*one) for one in maps])
        drawing.suptitle(
            textwrap.fill(title, TITLE_WIDTH), x=0.01, ha="left", size=STYLE["axes.titlesize"]
        )
    caption = (
        f"Mean attention that the image's tokens receive in layer {layer.layer}, asked: "
        f"{view.question} Outlined tokens are vision sinks."
    )
    name = f"{slug(view.model)}-picture-{slug(PurePath(view.image).stem)}"
    return Figure(name, title, caption, drawing, _rows(maps, view.grid))


def chosen_head(layer: LayerView) -> int:
    """Return the head whose map EAH shares; where it shares none, the densest."""
    return (layer.shared if layer.shared is not None else layer.densest) or 0


def shown_head(layer: LayerView) -> int:
    """Return the head that EAH changes most; where it changes none, the chosen head."""
    change = np.abs(layer.after - layer.before).sum(axis=1)  # (H, I) -> (H,)
    return int(change.argmax()) if change.max() > 0 else chosen_head(layer)


def _maps(layer: LayerView) -> list[_Map]:
    chosen, head = chosen_head(layer), shown_head(layer)
    name = "densest" if layer.shared is None else "shared"
    before = _Map(f"head {chosen}, {name}", layer.before[chosen], layer.sinks_before[chosen])
    pair = [
        _Map(f"head {head}, before EAH", layer.before[head], layer.sinks_before[head]),
        _Map(f"head {head}, after EAH", layer.after[head], layer.sinks_after[head]),
    ]
    return pair if head == chosen else [before, *pair]


def _rows(maps: list[_Map], grid: tuple[int, int] | None) -> Rows:
    header = ["token", "row", "column"]
    for one in maps:
        header += [one.title, f"{one.title}: sink"]
    rows: list[tuple[object, ...]] = [tuple(header)]
    for token in range(len(maps[0].values)):
        place = ("", "") if grid is None else divmod(token, grid[1])
        numbers = [(float(one.values[token]), int(one.sinks[token])) for one in maps]
        rows.append((token, *place, *(number for pair in numbers for number in pair)))
    return tuple(rows)
