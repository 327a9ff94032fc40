"""Ablations of answers made by hand, and choices on pictures that are not reported."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import fmean

import pytest

from eval.analysis.ablation import Ablation, ablations, choose
from eval.analysis.ablation_plan import AblationPlan, plan_ablation
from eval.analysis.choice import choice_sentence, split_pictures
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.run.settings import RunSettings
from eval.stats.intervals import Interval
from eval.tasks.base import TaskProtocol
from eval.tasks.chair.repeats import CaptionScorer
from eval.tasks.chair.scoring import ScoreSettings
from eval.tasks.pope.questions import POPE_TYPES
from eval.tasks.pope.task import Pope, PopeSettings
from tests.eval.analysis.toy import NoLabels

PICTURES = 60
# How often each arm answers right, of ten.
SKILL = {
    "baseline": 6, "eah": 7, "eah@layers=0": 5, "eah@layers=2": 9, "eah@receivers=4": 8,
}  # fmt: skip
PLAN = plan_ablation(["layers=0,1,2", "receivers=4,all"], RunSettings(model="llava-1.5"))
POPE = Pope(PopeSettings(), TaskProtocol(16, parser="pope"))


def items(parts: Sequence[str] = POPE_TYPES) -> list[Item]:
    return [
        Item(f"{picture}-{number}", f"{picture}.jpg", f"{part} {number}?", label, part)
        for part in parts
        for picture in range(PICTURES)
        for number, label in enumerate(("yes", "no"))
    ]


def answered(parts: Sequence[str] = POPE_TYPES) -> dict[str, list[Answer]]:
    """Return answers of every arm, right as often as its skill says."""
    found = {}
    for arm, skill in SKILL.items():
        rng = random.Random(skill)
        found[arm] = [
            Answer(item, item.label if rng.random() < skill / 10 else {"yes": "no"}.get(
                item.label, "yes"))
            for item in items(parts)
        ]  # fmt: skip
    return found


def pope_ablations(
    answers: Mapping[str, Sequence[Answer]], plan: AblationPlan = PLAN
) -> list[Ablation]:
    return ablations(plan, POPE, answers, model="llava-1.5", benchmark="pope")


def right(answers: Sequence[Answer]) -> float:
    """Return the accuracy as the mean over parts."""
    by_part = [
        [one.text == one.item.label for one in answers if one.item.part == part]
        for part in POPE_TYPES
    ]
    return sum(sum(of) / len(of) for of in by_part) / len(by_part)


def answers_to(
    answers: Mapping[str, Sequence[Answer]], items: Sequence[Item]
) -> dict[str, list[Answer]]:
    """Return the answers to some questions, by arm."""
    keys = {item.key for item in items}
    return {arm: [one for one in of if one.item.key in keys] for arm, of in answers.items()}


def test_points_are_means_over_parts_with_paired_differences() -> None:
    answers = answered()

    accuracy, f1 = pope_ablations(answers)

    assert (accuracy.metric, f1.metric) == ("accuracy, %", "F1, %")
    assert accuracy.percent
    assert accuracy.higher_is_better
    assert accuracy.pictures == PICTURES
    assert accuracy.baseline.value == pytest.approx(right(answers["baseline"]))
    assert accuracy.eah is not None
    assert accuracy.eah.value == pytest.approx(right(answers["eah"]))
    assert [(axis.setting, axis.label) for axis in accuracy.axes] == [
        ("layers", "layer (index, from 0)"), ("receivers", "receiving heads (number)"),
    ]  # fmt: skip
    points = [point for axis in accuracy.axes for point in axis.points]
    assert [(point.value, point.arm) for point in points] == [
        ("0", "eah@layers=0"), ("1", "eah"), ("2", "eah@layers=2"),
        ("4", "eah@receivers=4"), ("all", "eah"),
    ]  # fmt: skip
    for point in points:
        assert point.metric.value == pytest.approx(right(answers[point.arm]))
        moved = point.metric.value - accuracy.baseline.value
        assert point.difference.value == pytest.approx(moved)
        assert point.metric.low < point.metric.value < point.metric.high
    assert f1.baseline.value != pytest.approx(accuracy.baseline.value)


def test_the_papers_numbers_stand_beside_its_own_setting_alone() -> None:
    accuracy, f1 = pope_ablations(answered())

    papers = {(axis.setting, point.value): point.paper for axis in f1.axes for point in axis.points}
    assert papers == {
        ("layers", "0"): None, ("layers", "1"): 85.7, ("layers", "2"): None,
        ("receivers", "4"): None, ("receivers", "all"): 85.7,
    }  # fmt: skip
    assert f1.paper_baseline == 84.9
    assert f1.source == "EAH paper; 2nd / EAH, as quoted by the LocoRE paper; 2nd"
    assert accuracy.paper_baseline is None
    assert accuracy.axes[0].points[1].paper == 86.0
    (one_part, _) = pope_ablations(answered(("random",)))
    assert one_part.paper_baseline is None
    assert one_part.source == ""


def test_captions_have_both_metrics_of_chair_and_less_is_better(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({str(at): ["dog"] for at in range(PICTURES)}))
    scorer = CaptionScorer(ScoreSettings(ground_truth=truth, analyzer="lexicon"))
    plan = plan_ablation(["layers=2"], RunSettings(model="llava-1.5"))
    shares = {"baseline": 30, "eah": 20, "eah@layers=2": 10}  # captions with a kite
    answers = {
        arm: [
            Answer(
                Item(at, f"{at}.jpg", "Describe."),
                "A dog and a kite." if at < kites else "A dog, a dog, a dog.",
            )
            for at in range(PICTURES)
        ]
        for arm, kites in shares.items()
    }

    chair_s, chair_i = ablations(plan, scorer, answers, model="llava-1.5", benchmark="chair")

    assert (chair_s.metric, chair_i.metric) == ("CHAIRs, %", "CHAIRi, %")
    assert not chair_s.higher_is_better
    assert not chair_i.higher_is_better
    assert chair_s.baseline.value == 30 / 60
    assert chair_i.baseline.value == 30 / (30 * 2 + 30 * 3)
    assert chair_i.axes[0].points[0].metric.value == 10 / (10 * 2 + 50 * 3)
    assert (chair_s.paper_baseline, chair_i.paper_baseline) == (51.0, 15.2)
    assert choose(chair_s).value == "2"
    assert choice_sentence(chair_s) == (
        "llava-1.5: layers=2 was the only setting that was tried; CHAIRs 16.7 %, baseline 50.0 %."
    )


def test_an_arm_without_answers_is_named() -> None:
    answers = answered()
    del answers["eah@layers=2"]

    with pytest.raises(EvaluationError, match="arm eah@layers=2 of the ablation has no answers"):
        pope_ablations(answers)


def test_another_benchmark_has_its_first_metric() -> None:
    class Counted(NoLabels):
        metrics = POPE.metrics[1:2]

        def counts(self, answers: Sequence[Answer]) -> list[int]:
            return [sum(one.text == "yes" for one in answers)]

    found = ablations(PLAN, Counted(RunSettings()), answered(), model="llava-1.5", benchmark="toy")

    assert [one.metric for one in found] == ["precision, %"]
    assert found[0].source == ""


def test_the_best_value_is_chosen_over_all_settings() -> None:
    accuracy = pope_ablations(answered())[0]

    assert choose(accuracy).arm == "eah@layers=2"
    worst = replace(accuracy, higher_is_better=False)
    assert choose(worst).arm == "eah@layers=0"
    assert "layers=0 has the lowest accuracy of 4 settings, " in choice_sentence(worst)


def test_of_equals_the_first_is_chosen_and_nan_never() -> None:
    accuracy = pope_ablations(answered())[0]
    layers, receivers = accuracy.axes

    def valued(*values: float) -> Ablation:
        points = (*layers.points, *receivers.points)[: len(values)]
        changed = tuple(
            replace(point, metric=Interval(value, nan, nan))
            for point, value in zip(points, values, strict=True)
        )
        return replace(accuracy, axes=(replace(layers, points=changed),))

    assert choose(valued(nan, 0.5, 0.5)).value == "1"
    with pytest.raises(EvaluationError, match="no value has a number in accuracy, %"):
        choose(valued(nan, nan, nan))


def with_values(tried: Ablation, values: Sequence[float]) -> Ablation:
    """Return an ablation whose arms have other numbers, in their order."""
    arms = dict.fromkeys(point.arm for axis in tried.axes for point in axis.points)
    numbers = dict(zip(arms, values, strict=True))
    axes = [
        replace(
            axis,
            points=tuple(
                replace(point, metric=Interval(numbers[point.arm], nan, nan))
                for point in axis.points
            ),
        )
        for axis in tried.axes
    ]
    return replace(tried, axes=tuple(axes))


def test_a_choice_among_equals_says_so() -> None:
    answers = answered()
    tried = pope_ablations(answers)[0]
    reported = pope_ablations(answers, PLAN.only(tried.axes[0].points[0].arm))[0]
    equal, two = (with_values(tried, of) for of in ([0.5] * 4, [0.6, 0.6, nan, 0.1]))

    assert choice_sentence(equal).startswith(
        "llava-1.5: layers=0 has the highest accuracy of 4 settings (as 3 others have), 50.0 % "
        "(baseline 58.3 %). "
    )
    assert choice_sentence(two, reported).startswith(
        "llava-1.5: layers=0 has the highest accuracy of 3 settings (as 1 other has) on 60 "
        "pictures that it was chosen on (60.0 %). "
    )


def test_the_papers_numbers_are_of_the_model_in_the_configs() -> None:
    """A folder of another model may have the name of one."""
    plan, answers = PLAN, answered()

    same, other = (
        ablations(plan, POPE, answers, model="llava-1.5", benchmark="pope", config=config)
        for config in ("llava-1.5", "hf")
    )

    assert any(one.paper_baseline is not None for one in same)
    assert all(one.paper_baseline is None and not one.source for one in other)


def test_settings_without_a_number_are_no_reason_to_stop() -> None:
    """Captions that name no object have no CHAIRi."""
    tried = with_values(pope_ablations(answered())[0], [nan] * 4)

    assert (
        choice_sentence(tried) == "llava-1.5: no setting that was tried has a number in accuracy."
    )


@pytest.mark.parametrize("seed", range(4))
def test_pictures_to_choose_on_are_not_reported(seed: int) -> None:
    chosen, reported = split_pictures(items(), 20, seed)

    on, others = ({item.image for item in of} for of in (chosen, reported))
    assert (len(on), len(others)) == (20, PICTURES - 20)
    assert not on & others
    assert sorted([*chosen, *reported], key=str) == sorted(items(), key=str)
    assert len(chosen) == 20 * 2 * len(POPE_TYPES), "with all that is asked about them"
    assert (chosen, reported) == split_pictures(items(), 20, seed)
    assert chosen != split_pictures(items(), 20, seed + 1)[0]
    assert [item for item in items() if item in chosen] == chosen, "in their order"


def test_the_draw_depends_on_the_names_of_the_pictures_alone() -> None:
    once, _ = split_pictures(items(), 20, 7)
    again, _ = split_pictures(list(reversed(items(("popular",)))), 20, 7)

    assert {item.image for item in once} == {item.image for item in again}


@pytest.mark.parametrize(
    ("number", "reason"), [(60, "none is left to report"), (61, "they are too few")]
)
def test_too_many_pictures_to_choose_on_are_refused(number: int, reason: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        split_pictures(items(), number, 0)

    assert str(caught.value) == (
        f"--choose-on {number}, but the questions are about 60 picture(s), so that {reason}; "
        "choose on fewer, or ask about more"
    )


def test_a_choice_says_what_it_was_made_on_and_what_it_gives_elsewhere() -> None:
    answers = answered()
    chosen_on, reported_on = split_pictures(items(), 20, 0)
    tried = pope_ablations(answers_to(answers, chosen_on))[0]
    best = choose(tried)
    rest = answers_to({arm: answers[arm] for arm in ("baseline", "eah", best.arm)}, reported_on)
    reported = pope_ablations(rest, PLAN.only(best.arm))[0]

    found = choice_sentence(tried, reported)

    shares = [f"{100 * right(rest[arm]):.1f} %" for arm in ("baseline", "eah", "eah@layers=2")]
    minus = reported.axes[0].points[0].difference.points()
    assert (tried.pictures, reported.pictures) == (20, 40)
    there = f"{100 * right(answers_to(answers, chosen_on)['eah@layers=2']):.1f} %"
    assert found == (
        "llava-1.5: layers=2 has the highest accuracy of 4 settings on 20 pictures that it was "
        f"chosen on ({there}). On 40 other pictures, accuracy is baseline {shares[0]}, "
        f"eah {shares[1]}, layers=2 {shares[2]}; "
        f"layers=2 minus baseline: {minus}."
    )


def test_the_only_value_is_reported_on_the_other_pictures() -> None:
    plan = plan_ablation(["layers=2"], RunSettings(model="llava-1.5"))
    answers = {name: of for name, of in answered().items() if name in plan.arms()}
    tried, reported = (
        pope_ablations(answers_to(answers, part), plan)[0]
        for part in split_pictures(items(), 20, 0)
    )

    found = choice_sentence(tried, reported)

    there = reported.axes[0].points[0].metric.value
    assert there != tried.axes[0].points[0].metric.value
    assert found.startswith(
        "llava-1.5: layers=2 was the only setting that was tried. On 40 other pictures, accuracy "
        "is baseline "
    )
    assert f", layers=2 {100 * there:.1f} %;" in found


def test_a_choice_on_the_reported_pictures_says_that_it_looks_better_than_it_is() -> None:
    answers = answered()

    found = choice_sentence(pope_ablations(answers)[0])

    assert found == (
        "llava-1.5: layers=2 has the highest accuracy of 4 settings, "
        f"{100 * right(answers['eah@layers=2']):.1f} % (baseline "
        f"{100 * right(answers['baseline']):.1f} %). It was chosen on the pictures that it is "
        "reported on, so it looks better than it is; --choose-on N chooses on other pictures."
    )


def test_the_best_of_many_equal_values_looks_better_than_it_is() -> None:
    """Why one chooses on other pictures: no value is better than another here."""
    plan = plan_ablation(["layers=" + ",".join(map(str, range(12)))], RunSettings())
    rng = random.Random(3)
    asked = items(("random",))
    answers = {
        arm: [Answer(item, item.label if rng.random() < 0.7 else "?") for item in asked]
        for arm in plan.arms()
    }
    gaps = []
    for seed in range(5):
        tried, reported = (
            pope_ablations(answers_to(answers, of), plan)[0]
            for of in split_pictures(asked, 30, seed)
        )
        best = choose(tried)
        elsewhere = next(one for one in reported.axes[0].points if one.arm == best.arm)
        gaps.append(best.metric.value - elsewhere.metric.value)

    assert fmean(gaps) > 0.02
