"""POPE's metrics per method and question type, and what is printed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.output.table import render
from eval.run.costs import HEADER as COST_HEADER
from eval.run.costs import UNKNOWN as UNKNOWN_COST
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED, Interval
from eval.tasks.pope.pope_intervals import MEAN, Difference, Intervals, differences_of, intervals_of
from eval.tasks.pope.scoring import PARSERS, PopeMetrics, score_answers
from models.settings import CONFIGS, read_yaml

Row = dict[str, Any]
Costs = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class PopeResult:
    """Scores of one method on one type of questions, by parser."""

    method: str
    pope_type: str
    scores: dict[str, PopeMetrics]

    def as_dict(self) -> Row:
        """Return the result for metrics.json."""
        scores = {parser: metrics.as_dict() for parser, metrics in self.scores.items()}
        return {"method": self.method, "pope_type": self.pope_type, "scores": scores}


@dataclass(frozen=True, slots=True)
class PopeReport:
    """What is reported of the answers of a run, or of a file.

    Attributes:
        parser: How answers are read for all but the results, which have every parser's scores.
        results: Scores by method and question type.
        intervals: Intervals by method and question type, and of the mean over the types.
        differences: Other methods against the baseline.
        pictures: Number of pictures, which the intervals resample.
    """

    parser: str
    results: list[PopeResult]
    intervals: Intervals
    differences: list[Difference]
    pictures: int

    def as_dict(self) -> Row:
        """Return the report for metrics.json."""
        named = {
            key: {name: interval.as_dict() for name, interval in intervals.items()}
            for key, intervals in self.intervals.items()
        }
        return {
            "parser": self.parser,
            "bootstrap": {
                "resampled": "pictures",
                "pictures": self.pictures,
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "results": [
                r.as_dict() | {"intervals": named[r.method, r.pope_type]} for r in self.results
            ],
            "means": [
                {"method": method, "intervals": intervals}
                for (method, pope_type), intervals in named.items()
                if pope_type == MEAN
            ],
            "differences": [difference.as_dict() for difference in self.differences],
        }

    def text(self, costs: Costs | None = None) -> str:
        """Return the table and, below it, how each method differs from the baseline."""
        note = (
            f"in brackets: 95 % intervals from {RESAMPLES} bootstrap resamples "
            f"of the {self.pictures} picture(s)"
        )
        lines = [note, *(difference.sentence() for difference in self.differences)]
        return result_table(self, costs or {}) + "\n\n" + "\n".join(lines)


def report_of(rows: Sequence[Row], parser: str) -> PopeReport:
    """Score recorded answers; the parser is the one that the table shows."""
    pictures = len({row["image"] for row in rows})
    return PopeReport(
        parser, results_of(rows), intervals_of(rows, parser), differences_of(rows, parser), pictures
    )


def results_of(rows: Sequence[Row]) -> list[PopeResult]:
    """Score recorded answers, method by method, in the order that methods and types first occur."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["pope_type"]), []).append(row)
    return [
        PopeResult(
            method,
            pope_type,
            {
                parser: score_answers(
                    [row["answer"] for row in group], [row["label"] for row in group], parser
                )
                for parser in PARSERS
            },
        )
        for method in dict.fromkeys(method for method, _ in groups)
        for pope_type in dict.fromkeys(pope_type for _, pope_type in groups)
        if (group := groups.get((method, pope_type)))
    ]


def result_table(report: PopeReport, costs: Costs) -> str:
    """Return the result table, in percent, with a mean per method over its question types.

    Args:
        report: What is known of the answers.
        costs: Cells of each method from `eval.run.costs.cost_cells`; empty if not known.
    """
    rows = []
    for method in dict.fromkeys(result.method for result in report.results):
        mine = [result for result in report.results if result.method == method]
        lines = {result.pope_type: [result] for result in mine}
        if len(mine) > 1:
            lines[MEAN] = mine
        for pope_type, of in lines.items():
            scores = [result.scores[report.parser] for result in of]
            line = _line(method, pope_type, report.intervals[method, pope_type], scores)
            rows.append([*line, *costs.get(method, UNKNOWN_COST)] if costs else line)
    header = ["method", "questions", "n", "accuracy (95 %)", "precision", "recall", "F1 (95 %)",
              "yes ratio", "unknown", "TP", "FP", "TN", "FN"]  # fmt: skip
    return render([*header, *COST_HEADER] if costs else header, rows)


def published(model: str) -> list[str]:
    """Return the published numbers of a model as lines of text, each with its source."""
    entries = read_yaml(CONFIGS / "paper.yaml")["pope"].get(model, [])
    return [
        f"published, not measured here: {entry['method']}, {entry['questions']}: "
        f"accuracy {entry['accuracy']}, F1 {entry['f1']} ({entry['source']})"
        for entry in entries
    ]


def _line(
    method: str,
    pope_type: str,
    intervals: Mapping[str, Interval],
    scores: Sequence[PopeMetrics],
) -> list[str]:
    percents = {name: f"{100 * interval.value:.2f}" for name, interval in intervals.items()}
    for name in ("accuracy", "f1"):
        percents[name] = intervals[name].percent(digits=2)
    total, *counts = (
        str(sum(getattr(item, name) for item in scores))
        for name in ("total", "tp", "fp", "tn", "fn")
    )
    return [method, pope_type, total, *percents.values(), *counts]
