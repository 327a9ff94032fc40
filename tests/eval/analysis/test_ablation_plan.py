"""Arms of an ablation: one setting at a time, under the names that runs record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.analysis.ablation_plan import plan_ablation
from eval.errors import EvaluationError
from eval.run.settings import RunSettings

SETTINGS = RunSettings(model="llava-1.5")


def test_one_setting_changes_at_a_time() -> None:
    plan = plan_ablation(["layers=0,0-2,1+3", "min_density=0.15", "head=0"], SETTINGS)

    assert plan.arms() == (
        "baseline", "eah", "eah@layers=0", "eah@layers=0-2", "eah@layers=1+3",
        "eah@min_density=0.15", "eah@head=0",
    )  # fmt: skip
    assert [(axis.setting, list(axis.arms)) for axis in plan.axes] == [
        ("layers", ["0", "0-2", "1+3"]), ("min_density", ["0.15"]), ("head", ["0"]),
    ]  # fmt: skip
    (config,) = (arm.eah for arm in plan.axes[1].arms.values())
    assert config is not None
    assert (config.layers, config.min_density) == ((1,), 0.15)


def test_a_value_of_eah_itself_is_the_arm_eah() -> None:
    plan = plan_ablation(
        ["layers=1,2", "threshold=0.002,2e-3,0.001", "receivers=all,4", "min_density=0"], SETTINGS
    )

    assert plan.arms() == (
        "baseline", "eah", "eah@layers=2", "eah@threshold=0.001", "eah@receivers=4",
    )  # fmt: skip
    layers, threshold, _, density = plan.axes
    assert {value: arm.name for value, arm in layers.arms.items()} == {
        "1": "eah", "2": "eah@layers=2",
    }  # fmt: skip
    assert list(threshold.arms) == ["0.002", "0.001"], "2e-3 is 0.002 again"
    assert [arm.name for arm in density.arms.values()] == ["eah"]


def test_flags_of_the_command_hold_for_all_arms() -> None:
    settings = replace(SETTINGS, layers=(0, 1), sink_threshold=0.001, method=("eah",))

    plan = plan_ablation(["layers=0-1,2", "receivers=8"], settings)

    assert plan.arms() == (
        "baseline", "eah@layers=0-1,threshold=0.001", "eah@layers=2,threshold=0.001",
        "eah@layers=0-1,receivers=8,threshold=0.001",
    )  # fmt: skip
    assert plan.eah.name == "eah@layers=0-1,threshold=0.001"


def test_a_plan_is_cut_to_the_chosen_arm() -> None:
    plan = plan_ablation(["layers=1,2,3", "receivers=all,4"], SETTINGS)

    assert plan.only("eah@layers=3").arms() == ("baseline", "eah", "eah@layers=3")
    assert [list(axis.arms) for axis in plan.only("eah").axes] == [["1"], ["all"]]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("layers=0", "layer (index, from 0)"),
        ("threshold=0.1", "threshold (mean attention)"),
        ("receivers=1", "receiving heads (number)"),
        ("min-density=0.1", "gamma (share of image tokens)"),
        ("head=1", "shared head (index, from 0)"),
        ("vision_tokens=image", "vision tokens"),
    ],
)
def test_axes_have_names_with_units(text: str, label: str) -> None:
    assert plan_ablation([text], SETTINGS).axes[0].label == label


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["layers"], "--ablate 'layers': settings are written KEY=V1,V2"),
        (["layers=0,,1"], "--ablate 'layers=0,,1': settings are written"),
        (["layer=0"], "--ablate 'layer' is not a setting of EAH: did you mean 'layers'"),
        (["layers=0", "layers=1"], "--ablate layers: given twice; put all values into one list"),
        (["layers=2-1"], "layers='2-1' of an arm can't be read"),
        (["receivers=0"], "EAH settings of arm eah@receivers=0: receivers=0, but it is 'all' or"),
        (
            ["layers=" + ",".join(map(str, range(1001)))],
            "layers has 1001 values, but a run has at most 1000 arms",
        ),
    ],
)
def test_what_is_no_ablation_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        plan_ablation(texts, SETTINGS)

    assert message in str(caught.value)
