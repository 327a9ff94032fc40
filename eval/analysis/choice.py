"""Choose a setting fairly: on separate pictures, which are not reported."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import isnan

from eval.analysis.ablation import Ablation, Point, choose
from eval.analysis.wording import count_noun
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Item
from eval.run.arm_settings import EAH
from eval.stats.intervals import NONE, Interval


def split_pictures(
    items: Sequence[Item], choose_on: int, seed: int
) -> tuple[list[Item], list[Item]]:
    """Return the questions to choose a setting on, and those that are reported.

    All questions about a picture are on the same side, so that the two share no picture.

    Args:
        items: All questions.
        choose_on: Number of pictures to choose on.
        seed: Seed of the draw.
    Raises:
        EvaluationError: If there are too few, or none is left to report.
    """
    names = sorted({item.image for item in items})
    if choose_on >= len(names):
        lack = "none is left to report" if choose_on == len(names) else "they are too few"
        raise EvaluationError(
            f"--choose-on {choose_on}, but the questions are about {len(names)} picture(s), so "
            f"that {lack}; choose on fewer, or ask about more"
        )
    drawn = set(random.Random(seed).sample(names, choose_on))
    return (
        [item for item in items if item.image in drawn],
        [item for item in items if item.image not in drawn],
    )


def choice_sentence(tried: Ablation, reported: Ablation | None = None) -> str:
    """Return which value was best, and its metric on pictures that it was not chosen on.

    Args:
        tried: All values, on the pictures to choose on.
        reported: The baseline, EAH and at least the chosen value on other pictures; None where the
            choice was made on the pictures that are reported.
    """
    metric = tried.metric.removesuffix(", %")
    # Values of several settings may resolve to the same arm.
    arms = {point.arm: point.metric.value for axis in tried.axes for point in axis.points}
    known = [value for value in arms.values() if not isnan(value)]
    if not known:
        return f"{tried.model}: no setting that was tried has a number in {metric}."
    best = choose(tried)
    name, equals = _name(tried, best), known.count(best.metric.value) - 1
    most = "highest" if tried.higher_is_better else "lowest"
    value = _number(tried, best.metric)
    count = len(arms)
    has = f"{name} has the {most} {metric} of {len(known)} settings"
    if equals:
        has += f" (as {equals} {'other has' if equals == 1 else 'others have'})"
    baseline = f"{BASELINE} {_number(tried, tried.baseline)}"
    if reported is None and count == 1:
        return (
            f"{tried.model}: {name} was the only setting that was tried; {metric} {value}, "
            f"{baseline}."
        )
    if reported is None:
        return (
            f"{tried.model}: {has}, {value} ({baseline}). It was chosen on the pictures that it is "
            "reported on, so it looks better than it is; --choose-on N chooses on other pictures."
        )
    chosen = next(point for axis in reported.axes for point in axis.points if point.arm == best.arm)
    numbers = [f"{BASELINE} {_number(reported, reported.baseline)}"]
    if reported.eah is not None:
        numbers.append(f"{EAH} {_number(reported, reported.eah)}")
    numbers.append(f"{name} {_number(reported, chosen.metric)}")
    difference = chosen.difference
    minus = difference.points() if tried.percent else f"{difference.value:+.1f}"
    chosen_by = (
        f"{name} was the only setting that was tried"
        if count == 1
        else f"{has} on {count_noun(tried.pictures, 'picture')} that it was chosen on ({value})"
    )
    return (
        f"{tried.model}: {chosen_by}. On {count_noun(reported.pictures, 'other picture')}, "
        f"{metric} is {', '.join(numbers)}; {name} minus {BASELINE}: {minus}."
    )


def _name(ablation: Ablation, point: Point) -> str:
    """Return a value with its setting."""
    axis = next(axis for axis in ablation.axes if point in axis.points)
    return f"{axis.setting}={point.value}"


def _number(ablation: Ablation, number: Interval) -> str:
    """Return a number without its interval, in the metric's unit."""
    if isnan(number.value):
        return NONE
    return f"{100 * number.value:.1f} %" if ablation.percent else f"{number.value:.1f}"
