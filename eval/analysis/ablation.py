"""What EAH's settings do to the answers, one setting at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Final

from eah.settings import EAHConfig
from eval.analysis.paper import PaperValue, paper_numbers, paper_value
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer
from eval.stats.grouped import Grouped, compute_numbers
from eval.stats.intervals import Interval
from eval.stats.metric import Metric, Scorer

if TYPE_CHECKING:
    from eval.analysis.ablation_plan import AblationPlan

# Metrics that an ablation shows by benchmark; the first metric of any other.
METRICS: Final = {"pope": ("accuracy", "f1"), "chair": ("CHAIRs", "CHAIRi")}
LOWER_IS_BETTER: Final = ("CHAIRs", "CHAIRi")


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a setting.

    Attributes:
        arm: Its arm in the run.
        value: The value, as in the arm's name.
        metric: The metric with its interval.
        difference: Minus the baseline, paired by picture.
        paper: The paper's number for this setting, in the metric's unit: percent where numbers are
            shares; None where it is unknown.
    """

    arm: str
    value: str
    metric: Interval
    difference: Interval
    paper: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting of EAH; all others are as in the arm `eah`.

    Attributes:
        setting: Its name, such as "layers".
        label: For the figure, with its unit: "layer", "threshold (mean attention)", ...
        points: In order.
    """

    setting: str
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Ablation:
    """All settings that were tried on one model.

    Attributes:
        model: The model, as tables call it.
        metric: Name of the metric with its unit, such as "accuracy, %" or "CHAIRs, %".
        percent: Whether numbers are shares, which are shown times 100.
        higher_is_better: Whether more is better.
        baseline: The metric without EAH.
        paper_baseline: The paper's number without EAH, in the same unit; None where it is unknown.
        pictures: Number of pictures.
        axes: By setting.
        source: Where the paper's numbers are from; empty without any.
        eah: The metric with EAH's own settings; None where it was not measured.
    """

    model: str
    metric: str
    percent: bool
    higher_is_better: bool
    baseline: Interval
    paper_baseline: float | None
    pictures: int
    axes: tuple[Axis, ...]
    source: str = ""
    eah: Interval | None = None


def ablations(
    plan: AblationPlan,
    scorer: Scorer,
    answers: Mapping[str, Sequence[Answer]],
    *,
    model: str,
    benchmark: str,
    config: str | None = None,
) -> list[Ablation]:
    """Return what each setting does, an ablation per metric, in the benchmark's primary part.

    Args:
        plan: The arms.
        scorer: The benchmark's; CHAIR's scorer for captions.
        answers: By arm, of all arms of the plan, to the same questions.
        model: The model, as tables call it.
        benchmark: Name of the benchmark.
        config: The model's name in configs/, for the paper's numbers; None for the same name.
    Raises:
        EvaluationError: If an arm has no answers, or arms answered different questions.
    """
    names = plan.arms()
    if missing := [name for name in names if name not in answers]:
        raise EvaluationError(
            f"arm {missing[0]} of the ablation has no answers; rerun the command to answer the rest"
        )
    tried = {name: answers[name] for name in names}
    grouped = compute_numbers(scorer, tried, {name: [BASELINE] for name in names[1:]})
    asked = list(dict.fromkeys(answer.item.part for answer in tried[BASELINE]))
    parts = scorer.totals(asked).get(grouped.primary, [grouped.primary])
    paper = paper_numbers(benchmark, config or model)
    wanted = METRICS.get(benchmark, (scorer.metrics[0].name,))
    return [
        _ablation(plan, grouped, one, model, partial(paper_value, paper, one.name, parts))
        for one in scorer.metrics
        if one.name in wanted
    ]


def choose(ablation: Ablation) -> Point:
    """Return the value with the best metric over all settings; of equals the first.

    Raises:
        EvaluationError: If no value has a number.
    """
    points = [point for axis in ablation.axes for point in axis.points]
    known = [point for point in points if not isnan(point.metric.value)]
    if not known:
        raise EvaluationError(
            f"no value has a number in {ablation.metric}, so none can be chosen; ask about more "
            "pictures"
        )
    sign = 1 if ablation.higher_is_better else -1
    return max(known, key=lambda point: sign * point.metric.value)


def _ablation(
    plan: AblationPlan,
    grouped: Grouped,
    metric: Metric,
    model: str,
    paper: Callable[[EAHConfig | None], PaperValue | None],
) -> Ablation:
    """Return the ablation of one metric; `paper` finds the paper's number of an arm's settings."""
    numbers = {
        one.arm: one.numbers[metric.name] for one in grouped.results if one.part == grouped.primary
    }
    differences = {one.arm: one.numbers[metric.name] for one in grouped.primary_differences()}
    known = {BASELINE: paper(None)}
    axes = []
    for axis in plan.axes:
        points = []
        for value, arm in axis.arms.items():
            known[arm.name] = paper(arm.eah)
            there = _value_of(known[arm.name])
            points.append(Point(arm.name, value, numbers[arm.name], differences[arm.name], there))
        axes.append(Axis(axis.setting, axis.label, tuple(points)))
    name = metric.heading or metric.name
    return Ablation(
        model=model,
        metric=f"{name}, %" if metric.percent else name,
        percent=metric.percent,
        higher_is_better=metric.name not in LOWER_IS_BETTER,
        baseline=numbers[BASELINE],
        paper_baseline=_value_of(known[BASELINE]),
        pictures=grouped.pictures,
        axes=tuple(axes),
        source=" / ".join(dict.fromkeys(one.source for one in known.values() if one)),
        eah=numbers[plan.eah.name],
    )


def _value_of(found: PaperValue | None) -> float | None:
    return None if found is None else found.value
