"""Density by layer of answers with and without hallucination."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from eval.analysis.figures.panel import (
    CARD,
    INK,
    QUIET,
    SERIES,
    SIZE,
    Figure,
    house_style,
    layer_axis,
    legend_above,
    new_panel,
    share_axis,
    slug,
)
from eval.analysis.wording import join_names
from eval.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eval.analysis.claim import Claim, LayerClaim

MODEL_HEIGHT = 1.35  # inches a model takes in the figure of all models
ENDS = ("", " low", " high")


def claim_figures(claims: Sequence[Claim]) -> list[Figure]:
    """Return two figures a model, and one of all models' differences if there are several."""
    each = [figure for claim in claims for figure in (_density(claim), differences_figure([claim]))]
    return [*([differences_figure(claims)] if len(claims) > 1 else []), *each]


def _density(claim: Claim) -> Figure:
    title = f"{claim.model}: density of the densest head"
    layers = [one.layer for one in claim.layers]
    lines = (
        (f"without hallucination ({claim.without})", [x.without for x in claim.layers]),
        (f"with ({claim.hallucinating})", [x.hallucinating for x in claim.layers]),
    )
    with house_style():
        drawing, (axes,) = new_panel(title)
        for (label, line), (colour, marker, dash) in zip(lines, SERIES, strict=False):
            values, low, high = _columns(line)
            axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(layers, values, color=colour, marker=marker, linestyle=dash, label=label)
        layer_axis(axes, layers)
        share_axis(axes, "share of image tokens")
        axes.set_ylim(bottom=0)
        legend_above(axes)
    header = ("layer", *(f"{name}{end}" for name in ("without", "with") for end in ENDS))
    rows = (
        (one.layer, *_numbers(one.without), *_numbers(one.hallucinating)) for one in claim.layers
    )
    caption = (
        "Share of the image's tokens that are vision sinks in the layer's densest head, at "
        f"threshold {claim.threshold}, over answers without and with hallucination: {claim.what}. "
        f"Bands are 95 % intervals over {claim.pictures} pictures."
    )
    return Figure(f"{slug(claim.model)}-claim-density", title, caption, drawing, (header, *rows))


def differences_figure(claims: Sequence[Claim]) -> Figure:
    """Return the difference in density by layer, models below each other on the same scale."""
    several = len(claims) > 1
    whose = "all models" if several else claims[0].model
    title = f"{whose}: difference in density, answers without minus with hallucination"
    height = max(SIZE[1], 0.9 + MODEL_HEIGHT * len(claims))
    with house_style():
        drawing, panels = new_panel(title, len(claims), (SIZE[0], height))
        for axes, claim in zip(panels, claims, strict=True):
            _draw_differences(axes, claim.layers)
            if several:
                axes.set_title(claim.model, size=9.5, pad=22 if axes is panels[0] else 6)
            share_axis(axes, "difference, points", points=True)
            if all(isnan(one.difference.value) for one in claim.layers):
                axes.text(0.5, 0.6, "no two kinds of answers", transform=axes.transAxes,
                          ha="center", color=QUIET)  # fmt: skip
        layer_axis(panels[-1], sorted({one.layer for claim in claims for one in claim.layers}))
        legend_above(panels[0])
    rows = (
        (
            *((claim.model,) if several else ()),
            *(one.layer, *_numbers(one.difference), one.p_value, one.p_holm, one.is_found),
        )
        for claim in claims
        for one in claim.layers
    )
    header = (*(("model",) if several else ()), "layer", *(f"difference{end}" for end in ENDS),
              "p", "p Holm", "marked")  # fmt: skip
    caption = (
        "Mean density of the layer's densest head over answers without hallucination minus that "
        "over answers with one, in percentage points with 95 % intervals over pictures. Above 0 is "
        "what the paper claims. Filled: p < 0.05 in a permutation test over pictures, adjusted for "
        f"the number of layers (Holm). {_thresholds(claims)}"
    )
    name = "all-models-claim" if several else f"{slug(claims[0].model)}-claim-difference"
    return Figure(name, title, caption, drawing, (header, *rows))


def _thresholds(claims: Sequence[Claim]) -> str:
    """Return what sinks are counted with; models of one figure may differ in it."""
    whose: dict[str, list[str]] = {}
    for claim in claims:
        whose.setdefault(claim.threshold, []).append(claim.model)
    if len(whose) == 1:
        return f"Threshold {claims[0].threshold}."
    each = "; ".join(f"{text} of {join_names(models)}" for text, models in whose.items())
    return f"Thresholds differ: {each}."


def _draw_differences(axes: Axes, layers: Sequence[LayerClaim]) -> None:
    axes.axhline(0, color=INK, linewidth=0.9)
    colours = {True: SERIES[0][0], False: QUIET}
    for found, label in ((False, "no difference found"), (True, "p < 0.05 (Holm)")):
        chosen = [one for one in layers if one.is_found is found]
        values, low, high = _columns([one.difference for one in chosen])
        axes.errorbar(
            [one.layer for one in chosen],
            values,
            yerr=np.abs([values - low, high - values]),
            color=colours[found],
            marker="s" if found else "o",
            markersize=6 if found else 4.5,
            markerfacecolor=colours[found] if found else CARD,
            linestyle="none",
            linewidth=1.4,
            label=label,
        )
    axes.margins(y=0.1)


def _columns(line: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = np.array([_numbers(one) for one in line], dtype=np.float64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]


def _numbers(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high
