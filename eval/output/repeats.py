"""Report the repeats of a run: mean, standard deviation and interval, as table and JSON.

The report is written to a folder next to the run folders of the repeats:
`<label>-repeats<N>-<hash>/report/`. It has no run.json, since it is only a view of their answers.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isnan
from pathlib import Path
from typing import Any

from eval.output.report import reference_arms
from eval.output.table import WIDTH, fit
from eval.output.tables import PART, percent_note, title
from eval.run.recorded import RecordedRun
from eval.stats.intervals import CONFIDENCE, NONE, RESAMPLES, SEED, few_pictures_note
from eval.stats.metric import Metric, Scorer
from eval.stats.repeats import Repeated, RepeatedNumbers, RepeatedRuns, compute_repeats
from eval.tasks.base import Task


@dataclass(frozen=True, slots=True)
class RepeatsReport:
    """Everything that is reported about the repeats of a run.

    Attributes:
        task: The benchmark.
        runs: The run of each repeat, in the order of the seeds.
        arms: Names of the arms, without the seeds of the repeats.
        scored: Each scorer with its numbers.
        task_notes: The benchmark's notes on the answers of all repeats.
    """

    task: Task
    runs: Sequence[RecordedRun]
    arms: Sequence[str]
    scored: Sequence[tuple[Scorer, RepeatedRuns]]
    task_notes: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """The folder of the report, named after the runs and their arms."""
        first = self.runs[0].path
        what = [[run.path.name, list(run.arms)] for run in self.runs]
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        label = first.name.rpartition("-")[0]
        return first.parent / f"{label}-repeats{len(self.runs)}-{digest}" / "report"

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for `metrics.json` and `--json`."""
        return {
            "benchmark": self.task.name,
            **self.task.facts(),
            "repeats": len(self.runs),
            "seeds": list(range(len(self.runs))),
            "runs": [run.path.name for run in self.runs],
            "bootstrap": {
                "resampled": f"{self.task.resampled}s, each with its answers in all repeats",
                "pictures": self.scored[0][1].pictures,
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "results": [one.as_dict() for _, of in self.scored for one in of.results],
            "differences": [one.as_dict() for _, of in self.scored for one in of.differences],
        }

    def text(self, *, wide: bool = False) -> str:
        """Return the tables and the notes that explain them.

        Args:
            wide: Print all metrics.
        """
        own = [row for scorer, of in self.scored for row in _rows(scorer, of.results, wide=wide)]
        compared = [
            row for scorer, of in self.scored for row in _rows(scorer, of.differences, wide=wide)
        ]
        blocks = [_table("arm", own)]
        if compared:
            blocks.append(_table("arm - reference", compared))
        return "\n\n".join([*blocks, self._notes(wide=wide), *self.task_notes])

    def _notes(self, *, wide: bool) -> str:
        count, pictures = len(self.runs), self.scored[0][1].pictures
        lines = [
            f"mean, sd: over {count} repeats (seeds 0 to {count - 1}); sd is the sample standard "
            f"deviation (n - 1); 95 %: interval of the mean, from {RESAMPLES} bootstrap resamples "
            f"of the {pictures} {self.task.resampled}(s), each with its answers in all repeats"
        ]
        shown = [(m, runs) for scorer, runs in self.scored for m in scorer.metrics
                 if wide or not m.wide]  # fmt: skip
        lines += percent_note(m for m, _ in shown)
        numbers = [one.numbers[m.name] for m, runs in shown
                   for one in (*runs.results, *runs.differences)]  # fmt: skip
        if any(number.mean.wilson for number in numbers):
            lines.append(
                f"where all {self.task.resampled}s have the same value, the interval is Wilson's"
            )
        lines += few_pictures_note(pictures, self.task.resampled)
        return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def repeats_report(
    task: Task, runs: Sequence[RecordedRun], arms: Sequence[str], reference: str | None
) -> RepeatsReport:
    """Compute all numbers over the runs of all repeats.

    Args:
        task: The benchmark, with the protocol of the runs.
        runs: One run per repeat, with the arms to report.
        arms: Names of the arms in the report, in the order of the arms of each run.
        reference: Arm that all others are compared with; None for the baseline.
    """
    answers: Mapping[str, Sequence[Any]] = {
        name: [list(run.answers().values())[at] for run in runs] for at, name in enumerate(arms)
    }
    against = reference_arms(arms, reference)
    scorers: list[Scorer] = [*task.further_scorers(), task]
    scored = [(scorer, compute_repeats(scorer, answers, against)) for scorer in scorers]
    task_notes = task.notes({name: [*chain(*of)] for name, of in answers.items()})
    return RepeatsReport(task, runs, arms, scored, task_notes)


def _rows(scorer: Scorer, found: Sequence[RepeatedNumbers], *, wide: bool) -> list[list[str]]:
    shown = [metric for metric in scorer.metrics if wide or not metric.wide]
    return [
        [
            one.arm if one.reference is None else f"{one.arm} - {one.reference}",
            one.part,
            title(metric),
            _mean(one.numbers[metric.name], metric, signed=one.reference is not None),
            _sd(one.numbers[metric.name], metric),
        ]
        for one in found
        for metric in shown
    ]


def _table(first: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the column of parts is left out if there are none."""
    header = [first, PART, "metric", "mean (95 %)", "sd"]
    keep = [at for at, name in enumerate(header) if name != PART or any(row[at] for row in rows)]
    return fit([header[at] for at in keep], [[row[at] for at in keep] for row in rows])


def _mean(number: Repeated, metric: Metric, *, signed: bool) -> str:
    mean = number.mean
    if isnan(mean.value):
        return NONE
    sign = "+" if signed else ""
    # Adding 0.0 turns -0.0 into +0.0.
    value, low, high = (
        f"{round(metric.factor * end, metric.digits) + 0.0:{sign}.{metric.digits}f}"
        for end in (mean.value, mean.low, mean.high)
    )
    return value if isnan(mean.low) else f"{value} ({low}..{high})"


def _sd(number: Repeated, metric: Metric) -> str:
    return NONE if isnan(number.sd) else f"{metric.factor * number.sd:.{metric.digits}f}"
