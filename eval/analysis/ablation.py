"""What EAH's settings do to the answers, one setting at a time."""

from __future__ import annotations

from dataclasses import dataclass

from eval.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a setting.

    Attributes:
        arm: Its arm in the run.
        value: The value, as in the arm's name.
        metric: The metric with its interval.
        difference: Minus the baseline, paired by picture.
        paper: The paper's number for this setting, in the metric's unit; None where it is unknown.
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
        paper_baseline: The paper's number without EAH; None where it is unknown.
        pictures: Number of pictures.
        axes: By setting.
        source: Where the paper's numbers are from; empty without any.
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
