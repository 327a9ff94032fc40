"""Figures of where heads look in a picture. Needs matplotlib, which is imported when one is drawn.

Axes: H heads, I image tokens of one prompt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from eah.errors import EAHConfigError, EAHError, EAHStateError
from eah.grids import token_grid
from eah.observation import LayerObservation
from eah.settings import EAHConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

MEANS: Final = "mean attention a token receives"
COLORS: Final = "cividis"  # even in print, and to colour-blind eyes
SIZE: Final = (9.0, 3.0)  # inches
OPACITY: Final = 0.7  # of the heat over the picture


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One heat map.

    Attributes:
        title: Title above it.
        values: Mean attention that each image token receives, (I,).
        sinks: Which tokens are outlined, (I,) bool.
    """

    title: str
    values: Any
    sinks: Any


def draw(seen: Image.Image, grid: tuple[int, int] | None, panels: Sequence[Panel]) -> Figure:
    """Return a figure of a picture and heat maps next to it, on one scale of colours.

    Args:
        seen: The picture as the model sees it.
        grid: Rows and columns of the image tokens, which cover the picture; None if their positions
            are not known: then they are shown in order.
        panels: Heat maps.
    Raises:
        EAHError: If matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise EAHError("figures need matplotlib, which is not installed: pip install matplotlib")
    figures: Any = import_module("matplotlib.figure")
    figure = figures.Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots(1, 1 + len(panels))
    axes[0].imshow(seen.convert("RGB"))
    axes[0].set_title("as the model sees it", fontsize="medium")
    _hide_ticks(axes[0])
    top = max(float(np.max(panel.values, initial=0.0)) for panel in panels)
    colors: Any = import_module("matplotlib.colors")
    # Square root, so that differences stay visible if one token receives most attention.
    norm = colors.PowerNorm(0.5, vmin=0.0, vmax=top or 1.0)
    scale: dict[str, Any] = {"cmap": COLORS, "norm": norm}
    for place, panel in zip(axes[1:], panels, strict=True):
        values = np.asarray(panel.values, dtype=np.float32)
        sinks = np.asarray(panel.sinks, dtype=bool)
        if grid is None:
            heat = place.imshow(values[None], aspect="auto", interpolation="nearest", **scale)
            place.set_yticks([])
            place.set_xlabel("image token, in order")
            _outline(place, sinks[None])
        else:
            size = seen.size
            # Mid-greys, so that the picture hardly changes the colours over it.
            grey: dict[str, Any] = {"cmap": "gray", "vmin": -255, "vmax": 510}
            place.imshow(seen.convert("L"), extent=(0, size[0], size[1], 0), **grey)
            heat = place.imshow(
                values.reshape(grid),
                alpha=OPACITY,
                interpolation="nearest",
                extent=(0, size[0], size[1], 0),
                **scale,
            )
            _hide_ticks(place)
            _outline(place, sinks.reshape(grid), size)
        place.set_title(panel.title, fontsize="medium")
    bar = figure.colorbar(heat, ax=axes[1:], shrink=0.85)
    bar.solids.set_alpha(1.0)
    bar.set_label(MEANS, fontsize="small")
    return figure  # type: ignore[no-any-return]  # matplotlib is imported by name


def _hide_ticks(axes: Any) -> None:
    """Hide pixel positions, which mean nothing here."""
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Any, sinks: Any, size: tuple[int, int] | None = None) -> None:
    """Draw lines between sinks and other tokens: white on black, visible on any colour.

    Args:
        axes: Where they are drawn.
        sinks: Which tokens are sinks, (rows, columns) bool.
        size: Width and height that the grid covers; None for a strip, whose tokens are 1 wide.
    """
    rows, columns = sinks.shape
    width, height = (columns, rows) if size is None else size
    shift = -0.5 if size is None else 0.0  # `imshow` centres token 0 on 0
    x = np.arange(columns + 1) * (width / columns) + shift
    y = np.arange(rows + 1) * (height / rows) + shift
    padded = np.pad(sinks, 1)
    lines = [
        [(x[column], y[row]), (x[column], y[row + 1])]
        for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    ]
    lines += [
        [(x[column], y[row]), (x[column + 1], y[row])]
        for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    ]
    collection: Any = import_module("matplotlib.collections").LineCollection
    for color, thickness in (("black", 2.4), ("white", 1.0)):
        axes.add_collection(
            collection(
                lines, colors=color, linewidths=thickness, capstyle="projecting", clip_on=False
            ),
            autolim=False,
        )


def overlay_of(
    reports: Sequence[LayerObservation],
    config: EAHConfig,
    model_config: Any,
    image: Any,
    *,
    layer: int | None,
    head: int | None,
    row: int,
    grid: tuple[int, int] | None,
) -> Figure:
    """Return the figure of `Observer.overlay`; arguments and errors as there."""
    report = _report_of(reports, config, layer)
    rows = len(report.means)
    if not 0 <= row < rows:
        raise EAHConfigError(f"row={row}, but the pass had {rows} batch row(s), 0..{rows - 1}")
    means = report.means[row]  # (H, I)
    heads, tokens = means.shape
    if head is not None and not 0 <= head < heads:
        raise EAHConfigError(f"head={head}, but layer {report.layer} has heads 0..{heads - 1}")
    if not tokens:
        raise EAHStateError(f"batch row {row} has no image tokens; draw a row that has")
    grid = _grid(grid, tokens, model_config)
    sinks = report.is_sink[row] if report.is_sink else torch.zeros_like(means, dtype=torch.bool)
    panels = [
        Panel(f"{_panel_name(report, head)}, {when}", *_panel_values(values, mask, head))
        for when, values, mask in (
            ("without EAH", means, sinks),
            ("with EAH", report.shared(means, row), report.shared(sinks, row)),
        )
    ]
    return draw(read_image(image), grid, panels)


def read_image(image: Any) -> Image.Image:
    """Return a PIL picture, a file's or an array's picture in RGB.

    Raises:
        EAHConfigError: If it is none of these.
    """
    pillow: Any = import_module("PIL.Image")
    try:
        if isinstance(image, (str, os.PathLike)):
            image = pillow.open(image)
        elif isinstance(image, np.ndarray):
            image = pillow.fromarray(image)
        if isinstance(image, pillow.Image):
            return image.convert("RGB")  # type: ignore[no-any-return]  # PIL is imported by name
    except (OSError, TypeError, ValueError) as error:
        raise EAHConfigError(
            f"image can't be read: {error}; pass a PIL picture, a file, or an array of shape "
            "(height, width, 3), uint8"
        ) from error
    raise EAHConfigError(
        f"image is of type {type(image).__name__}; pass a PIL picture, a file, or an array of "
        "shape (height, width, 3), uint8"
    )


def _report_of(
    reports: Sequence[LayerObservation], config: EAHConfig, layer: int | None
) -> LayerObservation:
    """Return the layer that is drawn."""
    found = {report.layer: report for report in reports}
    if not found:
        raise EAHStateError(
            "nothing was observed yet: run the model on a picture within eah.observe first"
        )
    if layer is None:
        layer = next((target for target in config.layers if target in found), min(found))
    if layer not in found:
        known = ", ".join(map(str, found))
        raise EAHConfigError(f"layer={layer} was not observed; observed are {known}")
    if found[layer].skipped is not None:
        raise EAHStateError(f"nothing was observed in layer {layer}: {found[layer].skipped}")
    return found[layer]


def _grid(grid: tuple[int, int] | None, tokens: int, model_config: Any) -> tuple[int, int]:
    """Return the rows and columns of the image tokens."""
    advice = f"pass grid=(rows, columns) whose product is the {tokens} image tokens"
    if grid is None:
        grid = token_grid(model_config, tokens)
        if grid is None:
            family = getattr(model_config, "model_type", type(model_config).__name__)
            raise EAHConfigError(
                f"the positions of {tokens} image tokens of a {family} model in the picture are "
                f"not known; {advice}"
            )
    pair = tuple(grid) if isinstance(grid, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise EAHConfigError(f"grid={grid!r}; {advice}")
    if pair[0] * pair[1] != tokens:
        raise EAHConfigError(f"grid={pair} has {pair[0] * pair[1]} cells; {advice}")
    return pair[0], pair[1]


def _panel_name(report: LayerObservation, head: int | None) -> str:
    return f"layer {report.layer}, " + ("mean of heads" if head is None else f"head {head}")


def _panel_values(values: Any, sinks: Any, head: int | None) -> tuple[Any, Any]:
    """Return a head's values and sinks, or the mean, and what most heads have as a sink."""
    if head is not None:
        return values[head].numpy(), sinks[head].numpy()
    return values.mean(0).numpy(), (sinks.float().mean(0) > 0.5).numpy()
