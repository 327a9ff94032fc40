"""Build the tables of a report: comparisons, numbers and costs as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Final

from eval.run.costs import ArmCost
from eval.stats.intervals import NONE

if TYPE_CHECKING:
    from eval.output.report import Report
    from eval.stats.grouped import Difference, Result
    from eval.stats.metric import Metric

PART: Final = "part"
SHORT_NAME: Final = 12  # longest name of a reference that a heading shows
Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def primary_table(report: Report) -> Table:
    """Return the primary comparisons: each arm with its reference, in the primary part or total."""
    metric, primary = report.task.metrics[0], report.grouped.primary
    compared = report.grouped.primary_differences() if report.tested else []
    where = f"{title(metric)}, {primary} (95 %)" if primary else f"{title(metric)} (95 %)"
    rows = [
        [pair_name(one), _difference(one, metric), *_test_cells(one)]
        for one in compared
    ]  # fmt: skip
    return ["primary comparison", where, "p", "gained", "lost"], rows


def result_table(report: Report) -> Table:
    """Return the result table: a row per arm and part, with the difference to its reference."""
    metrics = [metric for metric in report.task.metrics if not metric.wide]
    first = metrics[0]
    compared = {
        (d.arm, d.part): d for d in report.grouped.differences if d.reference == report.reference
    }
    header = ["arm", *_part_column(report, PART), f"{title(first)} (95 %)"]
    header += [title(metric) for metric in metrics[1:]]
    if compared:
        name = report.reference if len(report.reference) <= SHORT_NAME else "reference"
        header.append(f"vs {name} (95 %)")
    rows = []
    for result in report.grouped.results:
        row = [result.arm, *_part_column(report, result.part)]
        row += [_cell(result, metric, interval=metric is first) for metric in metrics]
        difference = compared.get((result.arm, result.part))
        if compared:
            row.append("" if difference is None else _difference(difference, first))
        rows.append(row)
    return header, rows


def wide_table(report: Report) -> Table:
    """Return all numbers with their intervals: a row per arm and part."""
    header = ["arm", *_part_column(report, PART), "n"]
    header += [f"{title(metric)} (95 %)" for metric in report.task.metrics]
    rows = [
        [
            result.arm,
            *_part_column(report, result.part),
            str(result.answers),
            *(_cell(result, metric, interval=True) for metric in report.task.metrics),
        ]
        for result in report.grouped.results
    ]
    return header, rows


def difference_table(report: Report, *, wide: bool) -> Table:
    """Return the differences that the result table lacks; if `wide`, all, in all metrics."""
    metrics = report.task.metrics if wide else report.task.metrics[:1]
    shown = [d for d in report.grouped.differences if wide or d.reference != report.reference]
    header = ["arm - reference", *_part_column(report, PART)]
    header += [f"{title(metric)} (95 %)" for metric in metrics]
    tested = wide and report.tested
    header += ["p", "gained", "lost"] if tested else []
    rows = []
    for one in shown:
        row = [pair_name(one), *_part_column(report, one.part)]
        row += [_difference(one, metric) for metric in metrics]
        row += _test_cells(one) if tested else []
        rows.append(row)
    return header, rows


def cost_table(costs: Mapping[str, ArmCost], reference: str) -> Table:
    """Return the costs: a row per arm, with the time as a multiple of the reference's time."""
    name = reference if len(reference) <= SHORT_NAME else "reference"
    header = ["arm", "forward passes per token", f"time (x {name})", "prefix cache hits"]
    rows = [
        [
            arm,
            NONE if cost.forwards_per_token is None else f"{cost.forwards_per_token:.2f}",
            NONE if cost.time is None else f"{cost.time:.2f}",
            f"{cost.reused} of {cost.prompts}" if cost.prompts else NONE,
        ]
        for arm, cost in costs.items()
    ]
    return header, rows


def _part_column(report: Report, cell: str) -> list[str]:
    """Return the cell of the column of parts; nothing if the benchmark has no parts."""
    return [cell] if any(result.part for result in report.grouped.results) else []


def pair_name(difference: Difference) -> str:
    """Return the name of a comparison in tables."""
    return f"{difference.arm} - {difference.reference}"


def percent_note(metrics: Iterable[Metric]) -> list[str]:
    """Return which metrics are in percent, leaving out those with % in their names."""
    names = [title(m) for m in metrics if m.percent and "%" not in title(m)]
    return [f"{', '.join(names)}: in percent"] if names else []


def title(metric: Metric) -> str:
    """Return the title of a metric in tables."""
    return metric.heading or metric.name


def _cell(result: Result, metric: Metric, *, interval: bool) -> str:
    number = result.numbers[metric.name]
    if isnan(number.value):
        return NONE
    value = f"{metric.factor * number.value:.{metric.digits}f}"
    if not interval or isnan(number.low):
        return value
    low, high = (f"{metric.factor * end:.1f}" for end in (number.low, number.high))
    return f"{value} ({low}..{high})"


def _difference(difference: Difference, metric: Metric) -> str:
    number = difference.numbers[metric.name]
    if isnan(number.value):
        return NONE
    # Adding 0.0 turns -0.0 into +0.0.
    value = f"{round(metric.factor * number.value, metric.digits) + 0.0:+.{metric.digits}f}"
    if isnan(number.low):
        return value
    low, high = (f"{round(metric.factor * x, 1) + 0.0:+.1f}" for x in (number.low, number.high))
    return f"{value} ({low}..{high})"


def _test_cells(difference: Difference) -> list[str]:
    """Return p, gained and lost; p is Holm-adjusted in a primary comparison."""
    test = difference.test
    if test is None:
        return [NONE] * 3
    p_value = test.permutation.p_value if test.p_holm is None else test.p_holm
    p = NONE if isnan(p_value) else f"{p_value:.2g}"
    return [p, str(test.gained), str(test.lost)]
