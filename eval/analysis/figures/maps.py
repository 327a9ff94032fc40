"""Heat maps over layers and heads, and the share of dense heads by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from eval.analysis.figures.panel import (
    HEAT,
    QUIET,
    SERIES,
    Figure,
    Rows,
    house_style,
    layer_axis,
    legend_above,
    new_panel,
    share_axis,
    slug,
    thin_ticks,
)
from eval.analysis.maps import HeadMap
from eval.analysis.wording import count_noun
from eval.stats.intervals import Array

COLOURS: Final = 64  # each is a separate path in an SVG's colour bar


def map_figures(found: HeadMap) -> list[Figure]:
    """Return a model's figures: three kinds of heat maps and the dense heads, by threshold."""
    return [*_by_threshold(found), _attention(found)]


def _by_threshold(found: HeadMap) -> Iterator[Figure]:
    highest = _highest(found.density)  # the same colours for all thresholds
    pictures = count_noun(found.pictures, "picture")
    over = f"Means over {count_noun(found.prompts, 'prompt')} about {pictures}."
    for at in range(len(found.thresholds)):
        threshold = found.threshold_text(at)
        name = f"{slug(found.model)}-{{}}-{slug(f'{found.thresholds[at]:g}')}"
        yield heat_map(
            name.format("density"),
            f"{found.model}: vision sinks, threshold {threshold}",
            f"How many of a picture's tokens are vision sinks at threshold {threshold}, by layer "
            f"and head. {over}{_saturation(found, at)}",
            found,
            found.density[at],
            "share of image tokens",
            highest,
        )
        yield heat_map(
            name.format("densest"),
            f"{found.model}: densest head, threshold {threshold}",
            f"How often a head is its layer's densest, by EAH's rule, at threshold {threshold}.",
            found,
            found.densest[at],
            "share of prompts",
            _highest(found.densest),
        )
        yield _dense_share(found, at, name.format("dense-heads"))


def _attention(found: HeadMap) -> Figure:
    return heat_map(
        f"{slug(found.model)}-image-attention",
        f"{found.model}: attention to the image",
        "How much attention the image's tokens receive together, by layer and head: the sum of "
        "their means, each over the rows that see the token, averaged over "
        f"{count_noun(found.prompts, 'prompt')}. It may be above 1, because other rows see each "
        "token.",
        found,
        found.attention,
        "sum of mean attention",
        _highest(found.attention),
        percent=False,
    )


def heat_map(
    name: str,
    title: str,
    caption: str,
    found: HeadMap,
    values: Array,
    label: str,
    highest: float,
    *,
    percent: bool = True,
) -> Figure:
    """Return a heat map, layers by heads; cells without a head are hatched.

    Args:
        name: As `Figure` has it.
        title: Likewise.
        caption: Likewise.
        found: Whose layers they are.
        values: By layer and head, (L, H), from 0.
        label: What the colours mean.
        highest: Value of the last colour.
        percent: Whether values are shares, written in percent.
    """
    from matplotlib import colormaps

    with house_style():
        drawing, (axes,) = new_panel(title)
        axes.spines[["top", "right"]].set_visible(True)
        if np.isnan(values).any():
            axes.patch.set(hatch="////", edgecolor=QUIET)
        image = axes.imshow(
            np.ma.masked_invalid(values),
            cmap=colormaps[HEAT].resampled(COLOURS),
            vmin=0,
            vmax=highest,
            aspect="auto",
            interpolation="none",
        )
        layers, heads = values.shape
        shown = thin_ticks(layers)
        axes.set_yticks(range(layers)[shown], [str(layer) for layer in found.layers[shown]])
        axes.set_xticks(range(heads)[thin_ticks(heads)])
        axes.set_ylabel("layer (index, from 0)")
        axes.set_xlabel("head (index, from 0)")
        bar = drawing.colorbar(image, ax=axes, fraction=0.06)
        if percent:
            share_axis(bar.ax, label)
        else:
            bar.set_label(label)
    header = ("layer", *(f"head {head}" for head in range(heads)))
    rows = zip(found.layers, values.tolist(), strict=True)
    return Figure(name, title, caption, drawing, (header, *((at, *row) for at, row in rows)))


def _dense_share(found: HeadMap, at: int, name: str) -> Figure:
    threshold = found.threshold_text(at)
    title = f"{found.model}: dense heads, threshold {threshold}"
    shares = found.dense_share[at]  # (G, L)
    with house_style():
        drawing, (axes,) = new_panel(title)
        for line, (gamma, share) in enumerate(zip(found.gammas, shares, strict=True)):
            colour, marker, dash = SERIES[line % len(SERIES)]
            axes.plot(
                found.layers, share, color=colour, marker=marker, linestyle=dash,
                markersize=max(3.0, 7.5 - 2 * line),  # lines on top of each other are all seen
                label=f"density at least {gamma:g}",
            )  # fmt: skip
        layer_axis(axes, found.layers)
        share_axis(axes, "share of the layer's heads")
        highest = _highest(shares)
        axes.set_ylim(-0.04 * highest, 1.06 * highest)
        legend_above(axes)
    header = ("layer", *(f"density >= {gamma:g}" for gamma in found.gammas))
    rows: Rows = tuple(
        (layer, *share) for layer, share in zip(found.layers, shares.T.tolist(), strict=True)
    )
    caption = (
        "How many heads of a layer are dense: at least so much of the image's tokens are vision "
        f"sinks in them at threshold {threshold}. Means over {count_noun(found.prompts, 'prompt')}."
    )
    return Figure(name, title, caption, drawing, (header, *rows))


def _highest(values: Array) -> float:
    """Return the largest number, for the last colour; 1 where there is none above 0."""
    return float(np.nanmax(values, initial=0.0)) or 1.0


def _saturation(found: HeadMap, at: int) -> str:
    """Return a sentence on layers where counting says nothing."""
    share, layer = max(zip(found.saturated[at].tolist(), found.layers, strict=True))
    if not share > 0:
        return ""
    return (
        f" In layer {layer} every image token is a sink in every head for {100 * share:.3g} % of "
        "the prompts: a higher threshold separates its heads."
    )
