"""POPE's metrics per method and question type, and what is printed of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from eval.pope_scoring import PARSERS, PopeMetrics, score_answers
from eval.table import render
from models.settings import CONFIGS, read_yaml

Row = dict[str, Any]


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
class LayerSummary:
    """What EAH did in one layer over a run.

    Attributes:
        layer: Layer index, from 0.
        prompts: Prompts that were answered under EAH.
        heads: How many prompts each head was chosen in, most first; None where no head had a sink.
        mean_sinks: Mean number of sinks of the chosen head.
        mean_image_tokens: Mean number of image tokens.
        saturated: Prompts in which every image token passes the threshold in every head.
    """

    layer: int
    prompts: int
    heads: dict[str, int]
    mean_sinks: float
    mean_image_tokens: float
    saturated: int

    def as_dict(self) -> Row:
        """Return the summary for metrics.json."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def sentence(self) -> str:
        """Return the summary as a line of text."""
        shares = [
            f"head {head} in {100 * count / self.prompts:.1f} %"
            for head, count in list(self.heads.items())[:3]
            if head != "none"
        ]
        rest = len(self.heads) - len(shares)
        return (
            f"EAH in layer {self.layer}: {', '.join(shares) or 'no head'} of {self.prompts} prompts"
            f"{f' ({rest} more)' if rest else ''}; "
            f"{self.mean_sinks:.1f} sinks of {self.mean_image_tokens:.0f} image tokens on average; "
            f"no sink in {self.heads.get('none', 0)} prompts, saturated in {self.saturated}"
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


def layer_summaries(rows: Iterable[Row]) -> list[LayerSummary]:
    """Summarise what EAH found, from the recorded answers."""
    by_layer: dict[int, list[Row]] = {}
    for row in rows:
        for found in row.get("eah", []):
            by_layer.setdefault(found["layer"], []).append(found)
    return [
        LayerSummary(
            layer,
            len(found),
            dict(
                Counter(
                    "none" if f["head"] is None else str(f["head"]) for f in found
                ).most_common()
            ),
            fmean(f["sinks"] for f in found),
            fmean(f["image_tokens"] for f in found),
            sum(f["saturated"] for f in found),
        )
        for layer, found in sorted(by_layer.items())
    ]


def result_table(results: Sequence[PopeResult], parser: str) -> str:
    """Return the result table, in percent, with a mean per method over its question types."""
    rows = []
    for method in dict.fromkeys(result.method for result in results):
        mine = [result for result in results if result.method == method]
        rows += [_line(method, r.pope_type, r.scores[parser]) for r in mine]
        if len(mine) > 1:
            rows.append(_mean_line(method, [r.scores[parser] for r in mine]))
    header = ["method", "questions", "n", "accuracy", "precision", "recall", "F1", "yes ratio",
              "unknown", "TP", "FP", "TN", "FN"]  # fmt: skip
    return render(header, rows)


def published(model: str) -> list[str]:
    """Return the published numbers of a model as lines of text, each with its source."""
    entries = read_yaml(CONFIGS / "paper.yaml")["pope"].get(model, [])
    return [
        f"published, not measured here: {entry['method']}, {entry['questions']}: "
        f"accuracy {entry['accuracy']}, F1 {entry['f1']} ({entry['source']})"
        for entry in entries
    ]


def _line(method: str, pope_type: str, metrics: PopeMetrics) -> list[str]:
    shares = (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1, metrics.yes_ratio,
              metrics.unknown_rate)  # fmt: skip
    counts = (metrics.tp, metrics.fp, metrics.tn, metrics.fn)
    percents = [f"{100 * share:.2f}" for share in shares]
    return [method, pope_type, str(metrics.total), *percents, *map(str, counts)]


def _mean_line(method: str, metrics: Sequence[PopeMetrics]) -> list[str]:
    shares = ("accuracy", "precision", "recall", "f1", "yes_ratio", "unknown_rate")
    means = [f"{100 * fmean(getattr(item, name) for item in metrics):.2f}" for name in shares]
    counts = [
        str(sum(getattr(item, name) for item in metrics)) for name in ("tp", "fp", "tn", "fn")
    ]
    return [method, "mean", str(sum(item.total for item in metrics)), *means, *counts]
