"""Report a run: its numbers, differences and costs as tables, text and JSON.

All benchmarks share this code. Everything is computed from recorded answers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer
from eval.output.layer_summary import HEADER, LayerSummary, layer_summaries
from eval.output.table import WIDTH, fit, render
from eval.output.tables import (
    PART,
    Table,
    cost_table,
    difference_table,
    pair_name,
    percent_note,
    primary_table,
    result_table,
    wide_table,
)
from eval.run.arms import name_without_eah
from eval.run.costs import ArmCost, BatchCost, arm_costs
from eval.stats.grouped import Grouped, compute_numbers
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED, Interval, few_pictures_note
from eval.stats.permutation import EXACT, FLIPS
from eval.tasks.base import Appendix, Task


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is reported about some arms.

    Attributes:
        task: The benchmark, which computed the numbers.
        arms: Answers by arm.
        grouped: The numbers.
        reference: Arm that the result table compares with.
        costs: By arm; empty if they are not known.
        layers: What EAH did in each layer, by arm.
        appendix: What the benchmark reports besides its metrics.
    """

    task: Task
    arms: Mapping[str, Sequence[Answer]]
    grouped: Grouped
    reference: str
    costs: Mapping[str, ArmCost]
    layers: Mapping[str, list[LayerSummary]]
    appendix: Appendix = field(default_factory=Appendix)

    @property
    def tested(self) -> bool:
        """Whether answers are right or wrong."""
        return any(self.task.right(one) is not None for of in self.arms.values() for one in of)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for `metrics.json` and `--json`."""
        return {
            "benchmark": self.task.name,
            **self.task.facts(),
            "bootstrap": {
                "resampled": f"{self.task.resampled}s",
                "pictures": self.grouped.pictures,
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "primary": self.grouped.primary,
            "results": [result.as_dict() for result in self.grouped.results],
            "differences": [difference.as_dict() for difference in self.grouped.differences],
            "costs": {arm: asdict(cost) for arm, cost in self.costs.items()},
            "eah": {arm: [one.as_dict() for one in of] for arm, of in self.layers.items() if of},
            **self.appendix.content,
            **self.task.extra_metrics(self.arms),
        }

    def text(self, *, wide: bool = False) -> str:
        """Return the tables and the notes that explain them.

        Args:
            wide: Print all metrics and all differences, without a limit on the width.
        """
        tables = [
            primary_table(self),
            wide_table(self) if wide else result_table(self),
            difference_table(self, wide=wide),
            cost_table(self.costs, self.reference),
            self._eah_table(),
        ]
        # An abbreviated arm or pair has the same number in all tables.
        names = [*self.arms, *map(pair_name, self.grouped.differences)]
        blocks = []
        for header, rows in tables:
            keys = 2 if PART in header else 1
            if rows:
                blocks.append(
                    render(header, rows) if wide else fit(header, rows, names=names, keys=keys)
                )
        return "\n\n".join(filter(None, [*blocks, self._notes(wide=wide), self.appendix.text]))

    def _notes(self, *, wide: bool) -> str:
        """Return the lines that explain the columns and the intervals."""
        size = len(next(iter(self.arms.values())))
        grouped = self.grouped
        lines = [
            f"95 %: intervals from {RESAMPLES} bootstrap resamples of the {grouped.pictures} "
            f"{self.task.resampled}(s); {size} answers per arm"
        ]
        shown = [metric for metric in self.task.metrics if wide or not metric.wide]
        what = percent_note(shown)
        if any(d.reference == self.reference for d in grouped.differences) and not wide:
            what.append(f"vs: arm minus {self.reference}")
        if any(number.wilson for number in self._shown_intervals(wide=wide)):
            what.append(
                f"where all {self.task.resampled}s have the same value, the interval is Wilson's"
            )
        lines += ["; ".join(what)] if what else []
        lines += self._test_notes(wide=wide)
        lines += few_pictures_note(grouped.pictures, self.task.resampled)
        return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)

    def _test_notes(self, *, wide: bool) -> list[str]:
        """Return which tests the p-values are from, or why there are none."""
        compared = self.grouped.primary_differences()
        if not compared or not self.tested:
            return []
        tests = [one.test for one in compared if one.test is not None]
        lines = []
        if tests:
            count = sum(not isnan(test.permutation.p_value) for test in tests)
            adjusted = f", Holm-adjusted for {count} comparisons" if count > 1 else ""
            lines.append(
                f"p: sign-flip permutation test over {self.task.resampled}s (all flips where up to "
                f"{EXACT} differ, else {FLIPS:,} random ones){adjusted}"
            )
            if wide and any(one.part != self.grouped.primary for one in self.grouped.differences):
                lines.append("p of other rows: not adjusted")
            lines.append(
                "gained, lost: questions that only the first arm, or only the second, gets right"
            )
        if len(tests) < len(compared):
            lines.append("p n/a: the parser drops answers, so the arms have different questions")
        return lines

    def _shown_intervals(self, *, wide: bool) -> list[Interval]:
        """Return the numbers that the tables show with an interval."""
        names = [metric.name for metric in self.task.metrics][: None if wide else 1]
        found = [one.numbers for one in self.grouped.results]
        found += [one.numbers for one in self.grouped.differences]
        return [numbers[name] for numbers in found for name in names]

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
    """Compute all numbers of some arms. Each is compared with the reference, and x+eah with x.

    Args:
        task: The benchmark.
        arms: Answers by arm.
        reference: Arm that all others are compared with; None for the baseline.
        costs: By arm; None for answers that another tool gave.
    """
    against = reference_arms(list(arms), reference)
    spent = arm_costs({name: (costs or {}).get(name, []) for name in arms}, reference or BASELINE)
    layers = {name: layer_summaries(answers) for name, answers in arms.items()}
    grouped = compute_numbers(task, arms, against)
    return Report(task, arms, grouped, reference or BASELINE, spent if costs else {}, layers,
                  task.appendix(arms, against))  # fmt: skip


def reference_arms(arms: Sequence[str], reference: str | None) -> dict[str, list[str]]:
    """Return the arms that each arm is compared with: the reference, and x for an arm x+eah.

    Args:
        arms: Names of the arms.
        reference: Arm that the user named; None for the baseline.
    Raises:
        EvaluationError: If it is not one of the arms.
    """
    first = reference or BASELINE
    if reference is not None and reference not in arms:
        raise EvaluationError(
            f"--reference {reference} is not an arm of this run ({', '.join(arms)}); name one"
        )
    found = {}
    for arm in arms:
        others = [first] if first in arms and arm != first else []
        plain = name_without_eah(arm)
        if plain is not None and plain in arms and plain not in (*others, arm) and arm != first:
            others.append(plain)
        found[arm] = others
    return {arm: others for arm, others in found.items() if others}
