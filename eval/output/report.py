"""What is said of a run: its numbers, differences and costs as tables, text and JSON.

Written once for all benchmarks. Everything here is a view of recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer
from eval.output.layer_summary import HEADER, LayerSummary, layer_summaries
from eval.output.table import NONE, fit, render
from eval.run.arms import plain_name
from eval.run.costs import ArmCost, BatchCost, arm_costs
from eval.stats.grouped import Difference, Grouped, Metric, Result, group
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED
from eval.tasks.base import Task

PART: Final = "part"
PERCENT: Final = 100.0
SHORT_NAME: Final = 12  # of a reference in a heading
Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that is reported of some arms.

    Attributes:
        task: The benchmark, which computed the numbers.
        arms: Answers by arm.
        grouped: The numbers.
        reference: Arm that the result table compares with.
        costs: By arm; empty where they are not known.
        layers: What EAH did, by arm.
    """

    task: Task
    arms: Mapping[str, Sequence[Answer]]
    grouped: Grouped
    reference: str
    costs: Mapping[str, ArmCost]
    layers: Mapping[str, list[LayerSummary]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for `metrics.json` and `--json`."""
        return {
            "benchmark": self.task.name,
            **self.task.facts(),
            "bootstrap": {
                "resampled": "pictures",
                "pictures": self.grouped.pictures,
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "results": [result.as_dict() for result in self.grouped.results],
            "differences": [difference.as_dict() for difference in self.grouped.differences],
            "costs": {arm: asdict(cost) for arm, cost in self.costs.items()},
            "eah": {arm: [one.as_dict() for one in of] for arm, of in self.layers.items() if of},
            **self.task.more(self.arms),
        }

    def text(self, *, wide: bool = False) -> str:
        """Return the tables and what has to be known beside them.

        Args:
            wide: Print all metrics, and all differences, whatever the width.
        """
        tables = [
            wide_table(self) if wide else result_table(self),
            difference_table(self, wide=wide),
            cost_table(self.costs, self.reference),
            self._eah_table(),
        ]
        blocks = []
        for header, rows in tables:
            keys = 2 if PART in header else 1
            if rows:
                names = list(self.arms)  # an arm has one number in all tables
                blocks.append(
                    render(header, rows) if wide else fit(header, rows, names=names, keys=keys)
                )
        return "\n\n".join([*blocks, self._notes(wide=wide)])

    def _notes(self, *, wide: bool) -> str:
        """Return what the columns are and what the intervals are of."""
        size = len(next(iter(self.arms.values())))
        lines = [
            f"95 %: intervals from {RESAMPLES} bootstrap resamples of the {self.grouped.pictures} "
            f"picture(s); {size} answers per arm"
        ]
        shown = [metric for metric in self.task.metrics if wide or not metric.wide]
        percent = [_title(m) for m in shown if m.factor == PERCENT and "%" not in _title(m)]
        what = [f"{', '.join(percent)}: in percent"] if percent else []
        differences = self.grouped.differences
        if any(d.reference == self.reference for d in differences) and not wide:
            what.append(f"vs: minus {self.reference}")
        if any(d.test is not None for d in differences):
            what.append("p: McNemar's exact test")
        return "\n".join([*lines, "; ".join(what)]) if what else lines[0]

    def _eah_table(self) -> Table:
        rows = [[arm, *one.cells()] for arm, layers in self.layers.items() for one in layers]
        return ["arm", *HEADER], rows


def report_of(
    task: Task,
    arms: Mapping[str, Sequence[Answer]],
    *,
    reference: str | None = None,
    costs: Mapping[str, Sequence[BatchCost]] | None = None,
) -> Report:
    """Compute all numbers of some arms, each compared with the reference, and x+eah with x.

    Args:
        task: The benchmark.
        arms: Answers by arm.
        reference: Arm that all others are compared with; None for the baseline.
        costs: By arm; None for answers from elsewhere.
    """
    against = reference_arms(list(arms), reference)
    spent = arm_costs({name: (costs or {}).get(name, []) for name in arms}, reference or BASELINE)
    layers = {name: layer_summaries(answers) for name, answers in arms.items()}
    grouped = group(task, arms, against)
    return Report(task, arms, grouped, reference or BASELINE, spent if costs else {}, layers)


def reference_arms(arms: Sequence[str], reference: str | None) -> dict[str, list[str]]:
    """Return what each arm is compared with: the reference, and x for an arm x+eah.

    Args:
        arms: Names of the arms.
        reference: Named by the user; None for the baseline.
    Raises:
        EvaluationError: If it is none of the arms.
    """
    first = reference or BASELINE
    if reference is not None and reference not in arms:
        raise EvaluationError(
            f"--reference {reference} is not an arm of this run ({', '.join(arms)}); name one"
        )
    found = {}
    for arm in arms:
        others = [first] if first in arms and arm != first else []
        plain = plain_name(arm)
        if plain is not None and plain in arms and plain not in (*others, arm) and arm != first:
            others.append(plain)
        found[arm] = others
    return {arm: others for arm, others in found.items() if others}


def result_table(report: Report) -> Table:
    """Return the result table: a line per arm and part, with the difference to its reference."""
    metrics = [metric for metric in report.task.metrics if not metric.wide]
    first = metrics[0]
    compared = {
        (d.arm, d.part): d for d in report.grouped.differences if d.reference == report.reference
    }
    tested = any(d.test is not None for d in compared.values())
    header = ["arm", *_part_column(report, PART), f"{_title(first)} (95 %)"]
    header += [_title(metric) for metric in metrics[1:]]
    if compared:
        name = report.reference if len(report.reference) <= SHORT_NAME else "reference"
        header += [f"vs {name} (95 %)", *(["p"] if tested else [])]
    rows = []
    for result in report.grouped.results:
        row = [result.arm, *_part_column(report, result.part)]
        row += [_cell(result, metric, interval=metric is first) for metric in metrics]
        difference = compared.get((result.arm, result.part))
        if compared:
            row.append("" if difference is None else _difference(difference, first))
        if tested:
            row.append("" if difference is None else _p(difference))
        rows.append(row)
    return header, rows


def wide_table(report: Report) -> Table:
    """Return all numbers with their intervals: a line per arm and part."""
    header = ["arm", *_part_column(report, PART), "n"]
    header += [f"{_title(metric)} (95 %)" for metric in report.task.metrics]
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
    """Return the differences: those that the result table lacks, or all of all metrics."""
    metrics = report.task.metrics if wide else report.task.metrics[:1]
    shown = [d for d in report.grouped.differences if wide or d.reference != report.reference]
    header = ["arm - reference", *_part_column(report, PART)]
    header += [f"{_title(metric)} (95 %)" for metric in metrics]
    tested = any(d.test is not None for d in shown)
    header += ["p", "gained", "lost"] if tested else []
    rows = []
    for one in shown:
        row = [f"{one.arm} - {one.reference}", *_part_column(report, one.part)]
        row += [_difference(one, metric) for metric in metrics]
        if one.test is not None:
            row += [_p(one), str(one.test.gained), str(one.test.lost)]
        rows.append(row)
    return header, rows


def cost_table(costs: Mapping[str, ArmCost], reference: str) -> Table:
    """Return the costs: a line per arm, with the time as a multiple of the reference's."""
    name = reference if len(reference) <= SHORT_NAME else "reference"
    header = ["arm", "passes per token", f"time (x {name})", "prefix reused"]
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
    """Return the cell of the column of parts; nothing where a benchmark has none."""
    return [cell] if any(result.part for result in report.grouped.results) else []


def _title(metric: Metric) -> str:
    return metric.heading or metric.name


def _cell(result: Result, metric: Metric, *, interval: bool) -> str:
    number = result.numbers[metric.name]
    value = f"{metric.factor * number.value:.{metric.digits}f}"
    if not interval or isnan(number.low):
        return value
    low, high = (f"{metric.factor * end:.1f}" for end in (number.low, number.high))
    return f"{value} ({low}..{high})"


def _difference(difference: Difference, metric: Metric) -> str:
    number = difference.numbers[metric.name]
    # Adding 0.0 makes +0.0 of what would be printed as -0.0.
    value = f"{round(metric.factor * number.value, metric.digits) + 0.0:+.{metric.digits}f}"
    if isnan(number.low):
        return value
    low, high = (f"{round(metric.factor * x, 1) + 0.0:+.1f}" for x in (number.low, number.high))
    return f"{value} ({low}..{high})"


def _p(difference: Difference) -> str:
    return "" if difference.test is None else f"{difference.test.p_value:.2g}"
