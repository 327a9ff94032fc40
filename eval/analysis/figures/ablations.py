"""What a setting does to a metric, one figure a setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eval.analysis.ablation import Ablation, Axis
from eval.analysis.figures.panel import (
    CARD,
    QUIET,
    SERIES,
    Figure,
    house_style,
    legend_above,
    new_panel,
    slug,
    thin_ticks,
)
from eval.files.answers import BASELINE
from eval.stats.intervals import Interval

LONG_LABELS = 40  # characters of all labels together that fit side by side


def ablation_figures(ablations: Sequence[Ablation]) -> list[Figure]:
    """Return a figure for each setting of each model and metric."""
    return [_axis_figure(one, axis) for one in ablations for axis in one.axes]


def _axis_figure(found: Ablation, axis: Axis) -> Figure:
    metric, _, unit = found.metric.partition(", ")
    title = f"{found.model}: {metric} by {axis.setting.replace('_', ' ')}"
    rows = tuple(_rows(found, axis))
    caption = (
        f"{metric[:1].upper()}{metric[1:]}{f' ({unit})' if unit else ''} on {found.pictures} "
        "pictures, with one value of the setting at a time; all others are as in the arm eah. "
        "Bars and the baseline's band are 95 % intervals over pictures. "
        f"{'Higher' if found.higher_is_better else 'Lower'} is better."
    )
    if found.source and not np.isnan([row[4] for row in rows]).all():
        caption += f" Open markers: the paper's values ({found.source})."
    name = f"{slug(found.model)}-ablation-{slug(axis.setting)}-{slug(found.metric)}"
    with house_style():
        drawing, (axes,) = new_panel(title)
        base = SERIES[1][0]
        values = np.array([row[1:4] for row in rows], dtype=np.float64)
        value, low, high = values[0]
        axes.axhspan(low, high, color=base, alpha=0.15, linewidth=0)
        axes.axhline(value, color=base, linestyle="--", label=BASELINE)
        measured, low, high = values[1:].reshape(-1, 3).T
        places = np.arange(len(axis.points))
        axes.errorbar(
            places, measured, yerr=np.abs([measured - low, high - measured]),
            color=SERIES[0][0], marker="o", linestyle="none", linewidth=1.4, label="EAH",
        )  # fmt: skip
        style: dict[str, Any] = {
            "linestyle": "none",
            "color": QUIET,
            "markerfacecolor": CARD,
            "markersize": 6.5,
        }
        paper = [row[4] for row in rows[1:]]
        if not np.isnan(paper).all():
            axes.plot(places + 0.15, paper, marker="D", label="paper, EAH", **style)
        margin = max(0.9, 0.06 * len(axis.points))
        if found.paper_baseline is not None:
            axes.plot(
                [-0.6 * margin],
                [found.paper_baseline],
                marker="s",
                label="paper, baseline",
                **style,
            )
        labels = [point.value for point in axis.points]
        shown = thin_ticks(len(labels))
        turned = sum(map(len, labels[shown])) > LONG_LABELS
        axes.set_xticks(places[shown], labels[shown], rotation=30 if turned else 0,
                        ha="right" if turned else "center")  # fmt: skip
        axes.set_xlim(-margin, len(labels) - 0.4)
        axes.set_xlabel(axis.label)
        axes.set_ylabel(f"{found.metric}  ({'better →' if found.higher_is_better else '← better'})")
        axes.margins(y=0.1)
        axes.grid(visible=True, axis="y")
        legend_above(axes, ("EAH", BASELINE, "paper, EAH", "paper, baseline"))
    header = (axis.setting, found.metric, "low", "high", "paper")
    return Figure(name, title, caption, drawing, (header, *rows))


def _rows(found: Ablation, axis: Axis) -> Iterator[tuple[Any, ...]]:
    yield (BASELINE, *_numbers(found, found.baseline), _paper(found.paper_baseline))
    for point in axis.points:
        yield (point.value, *_numbers(found, point.metric), _paper(point.paper))


def _numbers(found: Ablation, metric: Interval) -> list[float]:
    times = 100 if found.percent else 1
    return [times * end for end in (metric.value, metric.low, metric.high)]


def _paper(value: float | None) -> float:
    return float("nan") if value is None else value
