"""Arms and their decoding methods, from names and flags to the result table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eah.settings import EAHConfig
from eval import chair_eval, pope_eval
from eval.errors import EvaluationError
from eval.evaluate import parser_of
from eval.evaluate import settings_of as evaluate_settings
from eval.files.answers import Answer
from eval.run.arm_settings import ArmDefaults, read_method_flags
from eval.run.arms import (
    Arm,
    arms_of,
    expand,
    name_without_eah,
    reference_of,
    resolve,
    resolve_arms,
)
from eval.run.recorded import RecordedRun, read_run
from eval.run.runner import derive_seed
from eval.run.settings import RunSettings
from eval.tasks.pope.task import Pope
from models.decoding.dola import Dola
from models.decoding.opera import Opera
from models.decoding.vcd import Vcd
from models.methods import read_methods
from scripts.scenes.make import write_scenes

PAPERS_FLAGS = [
    "--beam", "5", "--scale_factor", "50", "--threshold", "15",
    "--num_attn_candidates", "5", "--penalty_weights", "1",
]  # fmt: skip
PAPER = ArmDefaults({"preset": "paper"})
SCALE_FREE = ArmDefaults({"preset": "scale-free"})
DEFAULTS = (
    PAPER,
    SCALE_FREE,
    ArmDefaults({"preset": "released-code"}),
    ArmDefaults(published={"hgai": {"layers": [2, 3]}, "adhh": {"heads": "1h2"}}),
    ArmDefaults({"preset": "paper", "layers": [2], "threshold": 0.01, "head": 3}),
)


def settings_of(*arguments: str) -> RunSettings:
    return evaluate_settings(Pope, parser_of(Pope, ""), arguments)


def names_of(*arguments: str) -> list[str]:
    return [arm.name for arm in arms_of(settings_of(*arguments))]


# Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("baseline", Arm("baseline")),
        ("eah", Arm("eah", eah=EAHConfig())),
        ("opera", Arm("opera", "opera")),
        ("opera+eah", Arm("opera+eah", "opera", eah=EAHConfig())),
        ("eah+opera", Arm("opera+eah", "opera", eah=EAHConfig())),
        ("vcd+eah", Arm("vcd+eah", "vcd", eah=EAHConfig())),
        ("eah@layers=0", Arm("eah@layers=0", eah=EAHConfig(layers=(0,)))),
        ("eah@layers=1", Arm("eah", eah=EAHConfig())),
        ("eah@threshold=0.0020", Arm("eah", eah=EAHConfig())),
        (
            "eah@layers=2,threshold=0.001",
            Arm("eah@layers=2,threshold=0.001", eah=EAHConfig(layers=(2,), threshold=0.001)),
        ),
        (
            "eah@threshold = 1e-3 , layers=2",
            Arm("eah@layers=2,threshold=0.001", eah=EAHConfig(layers=(2,), threshold=0.001)),
        ),
        ("eah@layers=0-1", Arm("eah@layers=0-1", eah=EAHConfig(layers=(0, 1)))),
        ("eah@layers=0+1", Arm("eah@layers=0-1", eah=EAHConfig(layers=(0, 1)))),
        ("eah@layers=3+1", Arm("eah@layers=1+3", eah=EAHConfig(layers=(1, 3)))),
        ("eah@layers=0-2+5", Arm("eah@layers=0+1+2+5", eah=EAHConfig(layers=(0, 1, 2, 5)))),
        ("eah@head=3", Arm("eah@head=3", eah=EAHConfig(head=3))),
        ("eah@head=auto", Arm("eah", eah=EAHConfig())),
        ("eah@receivers=5", Arm("eah@receivers=5", eah=EAHConfig(receivers=5))),
        ("eah@receivers=all", Arm("eah", eah=EAHConfig())),
        ("eah@min-density=0.15", Arm("eah@min_density=0.15", eah=EAHConfig(min_density=0.15))),
        ("eah@vision_tokens=video", Arm("eah@vision_tokens=video",
                                        eah=EAHConfig(vision_tokens="video"))),
        ("eah@image_span=34:610", Arm("eah@image_span=34:610",
                                      eah=EAHConfig(image_span=(34, 610)))),
        ("eah@preset=paper", Arm("eah", eah=EAHConfig())),
        (
            "eah@preset=scale-free,layers=2",
            Arm("eah@preset=scale-free,layers=2", eah=EAHConfig.preset("scale-free", layers=(2,))),
        ),
        (
            "eah@preset=released-code",
            Arm("eah@preset=released-code", eah=EAHConfig.preset("released-code")),
        ),
        ("eah@rule=scale-free", Arm("eah@rule=scale_free", eah=EAHConfig(rule="scale_free"))),
        (
            "eah@rule=released-code,image_span=36:611",
            Arm(
                "eah@rule=released_code,image_span=36:611",
                eah=EAHConfig(rule="released_code", image_span=(36, 611)),
            ),
        ),
        (
            "eah@threshold=1.3,threshold_unit=uniform",
            Arm(
                "eah@threshold=1.3,threshold_unit=uniform",
                eah=EAHConfig(threshold=1.3, threshold_unit="uniform"),
            ),
        ),
        ("vcd@alpha=0.5", Arm("vcd@alpha=0.5", "vcd", {"alpha": 0.5})),
        ("vcd@alpha=1", Arm("vcd", "vcd")),
        ("vcd@beta=0.00001", Arm("vcd@beta=1e-05", "vcd", {"beta": 1e-5})),
        (
            "vcd+eah@layers=2,alpha=0.5",
            Arm("vcd+eah@alpha=0.5,layers=2", "vcd", {"alpha": 0.5}, EAHConfig(layers=(2,))),
        ),
        ("opera@threshold=20", Arm("opera@threshold=20", "opera", {"threshold": 20})),
        ("opera@opera.threshold=20", Arm("opera@threshold=20", "opera", {"threshold": 20})),
        (
            "opera+eah@threshold=0.001",
            Arm("opera+eah@threshold=0.001", "opera", eah=EAHConfig(threshold=0.001)),
        ),
        (
            "opera+eah@opera.threshold=20",
            Arm("opera+eah@opera.threshold=20", "opera", {"threshold": 20}, EAHConfig()),
        ),
        ("dola@layers=1+3", Arm("dola@layers=1+3", "dola", {"layers": [1, 3]})),
        ("dola@layers=5-5", Arm("dola@layers=5", "dola", {"layers": 5})),
        ("dola@layers=5", Arm("dola@layers=5", "dola", {"layers": 5})),
        ("dola@layers=high", Arm("dola@layers=high", "dola", {"layers": "high"})),
        (
            "dola+eah@dola.layers=0-2,layers=2",
            Arm("dola+eah@dola.layers=0-2,layers=2", "dola", {"layers": [0, 1, 2]},
                EAHConfig(layers=(2,))),
        ),
    ],
)  # fmt: skip
def test_names_say_what_an_arm_is(text: str, arm: Arm) -> None:
    assert resolve(text, PAPER) == arm


def test_a_name_holds_what_differs_from_the_models_config() -> None:
    tuned = DEFAULTS[-1]

    assert resolve("eah", tuned).eah == EAHConfig(layers=(2,), threshold=0.01, head=3)
    assert resolve("eah@layers=2,head=3", tuned).name == "eah"
    assert resolve("eah@layers=1,head=auto", tuned).name == "eah@layers=1,head=auto"
    assert resolve("eah@rule=paper", tuned).name == "eah@threshold=0.002"
    assert resolve("eah@preset=paper", tuned) == Arm("eah@preset=paper", eah=EAHConfig())
    assert resolve("eah@preset=scale-free", SCALE_FREE).name == "eah"
    assert resolve("eah@threshold=0.001", SCALE_FREE).eah == EAHConfig.preset(
        "scale-free", threshold=0.001, threshold_unit="attention"
    )


FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
OF_EAH: Mapping[str, st.SearchStrategy[Any]] = {
    "layers": st.sets(st.integers(0, 40), min_size=1, max_size=4).map(lambda x: tuple(sorted(x))),
    "head": st.none() | st.integers(0, 31),
    "receivers": st.just("all") | st.integers(1, 32),
    "min_density": st.floats(0, 1),
    "image_span": st.tuples(st.integers(0, 40), st.integers(41, 700)),
    "vision_tokens": st.sampled_from(["image", "video", "all"]),
    "threshold": FRACTIONS,
    "preset": st.sampled_from(["paper", "scale-free", "released-code"]),
}
OF_METHOD: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "vcd": {
        "alpha": st.floats(0, 1e20),
        "beta": st.floats(0, 1),
        "noise_step": st.integers(0, 999),
        "seed": st.integers(0, 2**31),
    },
    "opera": {
        "scale_factor": st.floats(0.1, 1e4),
        "threshold": st.integers(1, 30),
        "penalty_weights": st.floats(0, 10),
    },
    "hgai": {
        "layers": st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True),
        "alpha": st.floats(0, 10),
        "causal": st.booleans(),
    },
    "adhh": {
        "heads": st.sampled_from(["none", "1h2", "16h29+26h9"]),
        "threshold": st.floats(0, 2),
        "batch_sum": st.booleans(),
    },
    "dola": {
        "layers": st.sampled_from(["low", "high"])
        | st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True),
    },
}


def written(value: Any) -> str:
    """Return a value as somebody might write it."""
    if value is None:
        return "auto"
    if isinstance(value, tuple) and len(value) == 2 and value[1] > 40:  # a span
        return f"{value[0]}:{value[1]}"
    if isinstance(value, (tuple, list)):
        return "+".join(map(str, value)) if len(value) > 1 else f"{value[0]}-{value[0]}"
    return str(value)


@st.composite
def drawn_arms(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], str]:
    """Return an arm's text, its method, EAH's settings in it, and the method's part of it."""
    method = draw(st.sampled_from(["", *OF_METHOD]))
    of_eah = draw(st.fixed_dictionaries({}, optional=dict(OF_EAH)))
    known = OF_METHOD.get(method, {})
    own = draw(st.fixed_dictionaries({}, optional=dict(known)))
    prefixed = [f"{method}.{key}={written(value)}" for key, value in own.items()]
    parts = draw(st.permutations([*prefixed, *(f"{k}={written(v)}" for k, v in of_eah.items())]))
    name = f"{method}+eah" if method else "eah"
    plain = (method or "baseline") + ("@" + ",".join(prefixed) if prefixed else "")
    return name + ("@" + ",".join(parts) if parts else ""), method, of_eah, plain


@settings(deadline=None, max_examples=300)
@given(arm=drawn_arms(), defaults=st.sampled_from(DEFAULTS))
def test_a_recorded_name_means_the_same_settings_and_the_same_name(
    arm: tuple[str, str, dict[str, Any], str], defaults: ArmDefaults
) -> None:
    text, method, of_eah, plain = arm
    resolved = resolve(text, defaults)

    again = resolve(resolved.name, defaults)
    without = resolve(plain, defaults)

    assert again == resolved
    assert name_without_eah(resolved.name) == without.name
    assert resolved.changes == without.changes
    assert (resolved.method or "", without.eah) == (method, None)
    start = {"preset": of_eah["preset"]} if "preset" in of_eah else dict(defaults.model)
    if "threshold" in of_eah:
        start["threshold_unit"] = "attention"
    values = {**start, **of_eah}
    assert resolved.eah == EAHConfig.preset(values.pop("preset"), **values)


@pytest.mark.parametrize("preset", ["paper", "scale-free"])
@given(unit=st.floats(0.01, 100), rule=st.sampled_from(["paper", "scale-free", None]))
def test_thresholds_of_either_unit_and_rule_are_recorded(
    preset: str, unit: float, rule: str | None
) -> None:
    defaults = ArmDefaults({"preset": preset})
    text = f"eah@threshold={unit},threshold_unit=uniform" + (f",rule={rule}" if rule else "")

    arm = resolve(text, defaults)

    assert arm.eah is not None
    assert (arm.eah.threshold, arm.eah.threshold_unit) == (unit, "uniform")
    assert arm.eah.rule == (rule or preset).replace("-", "_")
    assert resolve(arm.name, defaults) == arm


@pytest.mark.parametrize("name", ["answers", "llava", "vcd+opera", "eah@nothing", "vcd@alpha={"])
def test_names_from_elsewhere_have_no_plain_arm(name: str) -> None:
    assert name_without_eah(name) is None


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("eah@layers=2", "baseline"),
        ("baseline", "baseline"),
        ("vcd+eah@alpha=0.5,layers=2", "vcd@alpha=0.5"),
        ("opera+eah@opera.threshold=20,threshold=0.001", "opera@threshold=20"),
        ("opera+eah@threshold=0.001", "opera"),
    ],
)
def test_the_arm_without_eah_keeps_its_methods_settings(name: str, plain: str) -> None:
    assert name_without_eah(name) == plain


# Flags and sweeps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["baseline", "eah"]),
        (["--LAYER_NUM", "2"], ["baseline", "eah@layers=2"]),
        (["--LAYER_NUM", "1"], ["baseline", "eah"]),
        (["--LAYER_NUM", "0", "1", "3"], ["baseline", "eah@layers=0+1+3"]),
        (["--THRES", "0.001"], ["baseline", "eah@threshold=0.001"]),
        (["--THRES", "0.002", "--HEAD_NUM", "3"], ["baseline", "eah@head=3"]),
        (["--rule", "scale-free"], ["baseline", "eah@rule=scale_free"]),
        (["--receivers", "5", "--min-density", "0.1"],
         ["baseline", "eah@receivers=5,min_density=0.1"]),
        (["--preset", "scale-free"], ["baseline", "eah@preset=scale-free"]),
        (["--model", "tiny-llava", "--preset", "paper"], ["baseline", "eah@preset=paper"]),
        (["--model", "tiny-llava", "--preset", "scale-free"], ["baseline", "eah"]),
        (["--LAYER_NUM", "2", "--method", "baseline", "eah", "eah@layers=0", "vcd+eah"],
         ["baseline", "eah@layers=2", "eah@layers=0", "vcd+eah@layers=2"]),
        (["--LAYER_NUM", "2", "--method", "eah@preset=paper"], ["eah"]),
        (PAPERS_FLAGS, ["baseline", "opera", "opera+eah"]),
        (["--scale_factor", "60"],
         ["baseline", "opera@scale_factor=60", "opera+eah@scale_factor=60"]),
        (["--scale_factor", "60", "--method", "opera", "opera@scale_factor=70"],
         ["opera@scale_factor=60", "opera@scale_factor=70"]),
        (["--threshold", "25", "--THRES", "0.001"],
         ["baseline", "opera@threshold=25", "opera+eah@opera.threshold=25,threshold=0.001"]),
        (["--options", "threshold=25"],
         ["baseline", "opera@threshold=25", "opera+eah@opera.threshold=25"]),
        ([*PAPERS_FLAGS, "--method", "opera"], ["opera"]),
        (["--method", "baseline", "dola", "pai+eah"], ["baseline", "dola", "pai+eah"]),
        (["--seed", "7", "--method", "vcd", "eah", "opera"], ["vcd@seed=7", "eah", "opera"]),
        (["--seed", "7", "--method", "vcd@seed=8"], ["vcd@seed=8"]),
        (["--seed", "42", "--method", "vcd"], ["vcd"]),
        (["--method", "vcd", "--method-settings", "vcd.alpha=0.5"], ["vcd@alpha=0.5"]),
        (["--method", "vcd", "--method-settings", "vcd.beta=1e-5", "vcd.noise-step=700"],
         ["vcd@beta=1e-05,noise_step=700"]),
        (["--method", "dola", "--method-settings", "dola.layers=[1, 3]"], ["dola@layers=1+3"]),
        (["--method", "dola", "--method-settings", "dola.layers=1+3"], ["dola@layers=1+3"]),
    ],
)  # fmt: skip
def test_flags_are_settings_of_all_arms_that_say_nothing_else(
    arguments: list[str], names: list[str]
) -> None:
    assert names_of(*arguments) == names


def test_a_sweep_makes_an_arm_of_each_point_beside_the_baseline() -> None:
    swept = names_of("--sweep", "layers=0,1,2", "threshold=0.001,0.002")

    assert swept == [
        "baseline",
        "eah@layers=0,threshold=0.001",
        "eah@layers=0",
        "eah@threshold=0.001",
        "eah",
        "eah@layers=2,threshold=0.001",
        "eah@layers=2",
    ]


@pytest.mark.parametrize(
    ("names", "sweep", "arms"),
    [
        (["baseline", "eah"], [], ["baseline", "eah"]),
        (["eah"], ["layers=0-1,1+3"], ["eah@layers=0-1", "eah@layers=1+3"]),
        (["eah@head=3"], ["min-density = 0.1 , 0.2"],
         ["eah@head=3,min_density=0.1", "eah@head=3,min_density=0.2"]),
        (["baseline", "vcd", "vcd+eah"], ["alpha=0.5,2", "layers=2"],
         ["baseline", "vcd@alpha=0.5", "vcd@alpha=2", "vcd+eah@alpha=0.5,layers=2",
          "vcd+eah@alpha=2,layers=2"]),
        (["vcd", "pai"], ["pai.alpha=0.1"], ["vcd", "pai@pai.alpha=0.1"]),
        (["opera", "opera+eah"], ["opera.threshold=10"],
         ["opera@opera.threshold=10", "opera+eah@opera.threshold=10"]),
    ],
)  # fmt: skip
def test_a_sweep_changes_the_arms_that_take_its_settings(
    names: list[str], sweep: list[str], arms: list[str]
) -> None:
    assert expand(names, sweep) == arms


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            ["layrs=1,2"],
            "layrs: no arm of baseline, eah has such a setting; they have preset",
        ),
        (["alpha=1,2"], "--sweep alpha: no arm of baseline, eah has such a setting"),
        (["layers"], "--sweep 'layers': write sweeps as KEY=V1,V2"),
        (["layers=1,"], "--sweep 'layers=1,': write sweeps as KEY=V1,V2"),
        (["layers=1", "layers=2"], "--sweep layers is given twice"),
        (["layers=1,1"], "name at least one arm, each once"),
        (["layers=0-1,0+1"], "'eah@layers=0\\+1' and 'eah@layers=0-1' are the same arm"),
        (["layers=two"], "layers='two' of an arm can't be read"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(sweep: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as error:
        settings_of("--sweep", *sweep)

    assert "\n" not in str(error.value)


def test_a_sweep_of_what_an_arm_says_itself_is_refused() -> None:
    with pytest.raises(EvaluationError, match="'eah@layers=2,layers=1': settings are written"):
        settings_of("--method", "eah@layers=2", "--sweep", "layers=1")


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["eha"], "method 'eha' is unknown: did you mean 'eah'"),
        (["opera+eha"], r"method 'opera\+eha': 'eha' is unknown: did you mean 'eah'"),
        (["eah@"], "method 'eah@': settings are written eah@layers=2,threshold=0.001, each once"),
        (["eah@layers"], "settings are written eah@layers=2"),
        (["eah@layers="], "settings are written eah@layers=2"),
        (["eah@layers=1,layers=2"], "settings are written eah@layers=2"),
        (["eah@min-density=1,min_density=1"], "settings are written eah@layers=2"),
        (["dola@layers=[1, 3]"], "a list is 0-2 or 1[+]3"),
        (["eah@layrs=2"], "setting 'layrs' of an arm is unknown: did you mean 'layers'"),
        (["eah@opera.threshold=2"], "setting 'opera.threshold' of an arm is unknown"),
        (["baseline@layers=2"], "setting 'layers' of an arm is unknown: baseline has no settings"),
        (["baseline+eah"], "'baseline' cannot be combined; separate arms"),
        (["opera+vcd"], "an arm has one of opera, vcd, dola, pai, .*spin, with or without"),
        (["eah+eah"], "an arm has one of"),
        (["eah", "eah"], "name at least one arm, each once"),
        ([], "name at least one arm, each once"),
        (["eah+vcd", "vcd+eah"], r"'vcd\+eah' and 'eah\+vcd' are the same arm, vcd\+eah"),
        (["eah", "eah@layers=1"], "method 'eah@layers=1' and 'eah' are the same arm, eah; name"),
        (["vcd@alpha=1.0", "vcd"], "'vcd' and 'vcd@alpha=1.0' are the same arm, vcd"),
        (["eah@layers=two"], "layers='two' of an arm can't be read; write a layer from 0, 0-2 or"),
        (["eah@layers=-1"], "layers='-1' of an arm can't be read"),
        (["eah@layers=2-0"], r"layers='2-0' of an arm can't be read; write a layer from 0"),
        (["eah@layers=1+1"], r"layers=\(1, 1\) names a layer twice"),
        (["eah@head=none"], "head='none' of an arm can't be read; write auto, or an index from 0"),
        (["eah@head=-1"], "head=-1, but a head is an index from 0"),
        (["eah@receivers=0"], "receivers=0, but it is 'all' or a number of heads from 1"),
        (["eah@receivers=few"], "receivers='few' of an arm can't be read; write all, or a number"),
        (["eah@min_density=2"], r"min_density=2.0, but it is a share in \[0, 1\]"),
        (["eah@image_span=34"], r"image span \(34,\), but a span is \(start, stop\)"),
        (["eah@image_span=34-610"], "image_span='34-610' of an arm can't be read; write start"),
        (["eah@preset=papr"], "preset 'papr' is unknown: did you mean 'paper'"),
        (["eah@rule=papr"], "rule='papr' is not a function or the name of a rule: did you"),
        (["eah@rule=released-code"], "set image_span=.start, stop. too"),
        (["eah@vision_tokens=pictures"], "vision_tokens='pictures', but it is one of"),
        (["eah@threshold=1.3"], "multiple of uniform attention, add threshold_unit=uniform"),
        (["eah@threshold=nan"], "a finite number is needed"),
        (["eah@threshold_unit=uniform"], "threshold_unit='uniform' without a threshold"),
        (["opera@threshold=15,opera.threshold=16"], "setting threshold of opera is given twice"),
        (["vcd@alpha={"], "setting '{' can't be read; write a number, a word, or a list"),
    ],
)  # fmt: skip
def test_arms_that_can_not_be_are_one_sentence(names: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as error:
        resolve_arms(names, PAPER)

    assert "\n" not in str(error.value)


def test_advice_on_the_unit_is_given_where_it_helps_only() -> None:
    with pytest.raises(EvaluationError) as error:
        resolve("eah@threshold=-1,threshold_unit=uniform", PAPER)

    assert "add threshold_unit=uniform" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vcd@alphas=1", "vcd has no setting 'alphas': did you mean 'alpha'"),
        ("vcd+eah@layrs=2", "vcd has no setting 'layrs'"),
        ("vcd@class=x", "vcd has no setting 'class'"),
        ("vcd@alpha=much", "vcd.alpha is 'much', but it must be of type float"),
        ("vcd@alpha=0-2", r"vcd.alpha is \[0, 1, 2\], but it must be of type float"),
        ("vcd@alpha=yes", "vcd.alpha is True, but it must be of type float"),
        ("vcd@alpha=2020-01-01", "vcd.alpha is datetime.date"),
        ("vcd@alpha=-5", "vcd: alpha=-5.0, but it must be at least 0"),
        ("vcd@beta=2", "vcd: beta=2.0, but it must be between 0 and 1"),
        ("opera@threshold=0.002", "opera.threshold is 0.002, but it must be of type int"),
    ],
)
def test_settings_that_a_method_does_not_take_are_one_sentence(name: str, message: str) -> None:
    arm = resolve(name, PAPER)

    with pytest.raises(EvaluationError, match=message):
        arm.decoding()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vcd.alpha"], "write settings as METHOD.SETTING=VALUE"),
        (["alpha=1"], "write settings as METHOD.SETTING=VALUE"),
        (["vdc.alpha=1"], "method 'vdc' is unknown: did you mean 'vcd'"),
        (["vcd.alpha={"], "setting '{' can't be read"),
    ],
)
def test_method_settings_that_can_not_be_read_are_one_sentence(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_method_flags(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale_factor", "60"], r"--scale_factor is a setting of opera, which .* \(vcd, eah\)"),
        (["--method-settings", "pai.alpha=1"],
         r"--method-settings pai.alpha is a setting of pai, which no arm of this run has \(vcd"),
        (["--method-settings", "opera.parity=true"],
         "--method-settings opera.parity is a setting of opera, .*; add opera or opera\\+eah to"),
    ],
)  # fmt: skip
def test_flags_of_a_method_that_no_arm_has_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        settings_of("--method", "vcd", "eah", *arguments)


def test_the_reference_is_resolved_as_arms_are() -> None:
    assert reference_of(settings_of("--reference", "eah@layers=1")) == "eah"
    assert reference_of(settings_of("--reference", "eah", "--LAYER_NUM", "2")) == "eah@layers=2"
    assert reference_of(settings_of()) is None
    with pytest.raises(EvaluationError, match="method 'eha' is unknown"):
        reference_of(settings_of("--reference", "eha"))


# Decoding methods ------------------------------------------------------------------------------


def test_flags_reach_the_method() -> None:
    settings = settings_of("--beam", "5", "--threshold", "25", "--num_attn_candidates", "1")

    baseline, opera, on_eah = arms_of(settings)

    expected = Opera(scale_factor=50.0, threshold=25, num_attn_candidates=1)
    assert baseline.decoding() is None
    assert opera.decoding() == on_eah.decoding() == expected


def test_settings_of_any_method_can_be_changed() -> None:
    vcd, dola, high = (
        resolve(name, PAPER)
        for name in ("vcd@alpha=0.5,noise-step=700", "dola@layers=1+3", "dola@layers=high")
    )

    assert vcd.decoding() == Vcd(alpha=0.5, noise_step=700)
    assert dola.decoding() == Dola(layers=(1, 3))
    assert high.decoding() == Dola(layers="high")
    assert vcd.as_record()["settings"] == {
        "alpha": 0.5, "beta": 0.1, "noise_step": 700, "seed": 42,
    }  # fmt: skip
    assert vcd.as_record()["eah"] is None
    assert resolve("eah@head=3", PAPER).as_record()["eah"]["head"] == 3


def test_every_method_builds_with_its_published_settings() -> None:
    for name, content in read_methods().items():
        method = resolve(name, PAPER)
        assert type(method.decoding()).__name__ == str(content["class"]).split(".")[-1]
        recorded = json.loads(json.dumps(method.as_record()["settings"]))
        published = json.loads(json.dumps(content))
        for key, value in published.items():
            assert key in ("class", "published_for") or recorded[key] == value


def test_every_published_setting_has_its_source() -> None:
    path = Path(__file__).resolve().parents[3] / "configs/methods.yaml"
    lines = [line for line in path.read_text().splitlines() if "class:" in line]

    assert len(lines) == len(read_methods())
    assert all("}  # " in line for line in lines)


# Runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=4, seed=2014)
    return folder


def flags(scenes: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def pope(scenes: Path, tmp_path: Path) -> list[str]:
    built = str(scenes / "annotations/instances_val2014.json")
    return [*flags(scenes, tmp_path), "--build-from", built, "--pope-path", str(scenes / "pope"),
            "--pope-type", "random"]  # fmt: skip


def run_of(tmp_path: Path, benchmark: str = "pope") -> RecordedRun:
    (folder,) = (tmp_path / f"runs/{benchmark}/tiny-llava").iterdir()
    return read_run(folder)


def heads_of(answers: Sequence[Answer]) -> dict[Any, int | None]:
    return {answer.item.key: answer.findings[0].head for answer in answers}


def row_of(printed: str, heading: str, arm: str) -> list[str]:
    """Return the cells of an arm in the table that has a heading."""
    (table,) = [block for block in printed.split("\n\n") if heading in block.splitlines()[0]]
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {arm} ")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_papers_pope_command_shows_opera_and_eahs_share(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pope_eval.main([*pope(scenes, tmp_path), *PAPERS_FLAGS, "--limit", "6"]) == 0

    run, printed = run_of(tmp_path), capsys.readouterr().out
    metrics = json.loads((run.path / "report/metrics.json").read_text())
    assert list(run.arms) == ["baseline", "opera", "opera+eah"]
    assert run.settings["decoding"]["num_beams"] == 5
    assert run.arms["opera+eah"].info["settings"]["threshold"] == 15
    assert run.arms["opera+eah"].info["eah"]["layers"] == [1]
    assert [(d["arm"], d["reference"]) for d in metrics["differences"]] == [
        ("opera", "baseline"), ("opera+eah", "baseline"), ("opera+eah", "opera"),
    ]  # fmt: skip
    for name, arm in run.arms.items():
        tokens = [[found.image_tokens for found in answer.findings] for answer in arm.answers]
        assert tokens == [[64] if name == "opera+eah" else []] * 6
    # two passes per token; search can go on after the best answer's end
    _, passes, time, _ = row_of(printed, "passes per token", "opera+eah")
    assert 2.0 <= float(passes) < 5.0
    assert float(time) > 0


def test_the_papers_chair_command_runs_with_operas_flags(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*flags(scenes, tmp_path), *PAPERS_FLAGS, "--limit", "2", "--max-new-tokens", "20"]

    assert chair_eval.main(given) == 0

    folder = run_of(tmp_path, "chair").path
    captions = (folder / "report/captions_opera+eah.jsonl").read_text().splitlines()
    assert len(captions) == 2
    assert "| opera+eah |" in capsys.readouterr().out


METHODS = ["baseline", "eah", "vcd", "dola", "pai", "vcd+eah", "pai+eah", "dola+eah"]


@pytest.fixture(scope="module")
def all_methods(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordedRun, dict[str, Any]]:
    """Return a run of all methods with batches of 4, and what it wrote with `--json`."""
    folder = tmp_path_factory.mktemp("all")
    given = [*pope(scenes, folder), "--method", *METHODS, "--limit", "10", "--batch-size", "4"]
    assert pope_eval.main([*given, "--json", str(folder / "all.json")]) == 0
    return run_of(folder), json.loads((folder / "all.json").read_text())


def test_all_methods_are_arms_of_one_run_and_one_table(
    all_methods: tuple[RecordedRun, dict[str, Any]],
) -> None:
    run, found = all_methods

    assert set(run.finished()) == set(METHODS)
    assert [one["arm"] for one in found["results"]] == METHODS
    passes = {arm: cost["forwards_per_token"] for arm, cost in found["costs"].items()}
    assert passes == dict.fromkeys(METHODS, 1.0)
    prompts = {arm: cost["prompts"] for arm, cost in found["costs"].items()}
    # VCD and PAI ask a second prompt for each, which they contrast with; DoLa does not.
    assert prompts["vcd"] == 2 * prompts["baseline"] == 2 * prompts["dola"]
    heads = [heads_of(run.arms[arm].answers) for arm in METHODS if "eah" in arm]
    assert heads == [heads[0]] * 4


def test_vcds_noise_is_the_same_after_a_resume(
    all_methods: tuple[RecordedRun, dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    given = [*pope(scenes, tmp_path), "--method", "vcd", "--limit", "10", "--batch-size", "4"]
    assert pope_eval.main([*given, "--dry-run"]) == 0
    whole = all_methods[0]
    folder = tmp_path / f"runs/pope/tiny-llava/{whole.path.name}"
    (folder / "arms/vcd").mkdir(parents=True)
    for name in ("run.json", "arms/vcd/arm.json"):
        (folder / name).write_bytes((whole.path / name).read_bytes())
    recorded = (whole.path / "arms/vcd/answers.jsonl").read_text()
    (folder / "arms/vcd/answers.jsonl").write_text("".join(recorded.splitlines(keepends=True)[:5]))

    assert pope_eval.main(given) == 0

    assert (folder / "arms/vcd/answers.jsonl").read_text() == recorded
    assert run_of(tmp_path).arms["vcd"].info["resumed"]


def test_vcds_noise_follows_from_its_seed_and_the_picture(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    add_noise = Vcd.add_noise

    def recorded(self: Vcd, pixels: torch.Tensor, seed: int) -> torch.Tensor:
        drawn.append(seed)
        return add_noise(self, pixels, seed)

    monkeypatch.setattr(Vcd, "add_noise", recorded)
    arms = ["--method", "vcd", "vcd@seed=7", "vcd@alpha=2"]

    assert pope_eval.main([*pope(scenes, tmp_path), *arms, "--limit", "10"]) == 0

    pictures = {answer.item.image for answer in run_of(tmp_path).arms["vcd"].answers}
    assert len(pictures) > 1
    seeds = {s: [derive_seed(s, "noise", name) for name in pictures] for s in (42, 7)}
    assert sorted(drawn) == sorted([*seeds[42], *seeds[7], *seeds[42]])
    assert len(set(drawn)) == 2 * len(pictures)


def test_arms_answer_as_they_do_alone(
    all_methods: tuple[RecordedRun, dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    """A method of one arm leaves nothing behind for the next."""
    torch.manual_seed(1)
    for arm in ("baseline", "dola+eah"):
        given = [*pope(scenes, tmp_path), "--limit", "10", "--batch-size", "4", "--method", arm]
        assert pope_eval.main(given) == 0

    alone, together = run_of(tmp_path), all_methods[0]
    assert alone.path.name == together.path.name  # the list of arms does not name the folder
    for arm in alone.arms:
        assert alone.arms[arm].answers == together.arms[arm].answers


def test_two_settings_of_eah_share_a_run(scenes: Path, tmp_path: Path) -> None:
    arms = ["baseline", "eah@layers=0", "eah@layers=1,threshold=0.001"]
    out = tmp_path / "all.json"

    given = [*pope(scenes, tmp_path), "--limit", "6", "--method", *arms, "--json", str(out)]
    assert pope_eval.main(given) == 0

    run, found = run_of(tmp_path), json.loads(out.read_text())
    names = ["baseline", "eah@layers=0", "eah@threshold=0.001"]  # layer 1 is the model's own
    assert list(run.finished()) == [one["arm"] for one in found["results"]] == names
    layers = {
        name: {(f.layer, f.image_tokens) for a in arm.answers for f in a.findings}
        for name, arm in run.arms.items()
    }
    assert layers == {names[0]: set(), names[1]: {(0, 64)}, names[2]: {(1, 64)}}
    assert [d["reference"] for d in found["differences"]] == ["baseline", "baseline"]
    # Below uniform attention every image token is a sink.
    (low,) = found["eah"]["eah@threshold=0.001"]
    assert low["mean_sinks"] > found["eah"]["eah@layers=0"][0]["mean_sinks"]


def test_a_sweep_runs_as_arms_beside_the_baseline(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*pope(scenes, tmp_path), "--limit", "2", "--sweep", "layers=0,1,2"]

    assert pope_eval.main([*given, "threshold=0.001,0.002"]) == 0

    printed = capsys.readouterr().out
    run = run_of(tmp_path)
    assert set(run.finished()) == {"baseline"} | {
        f"eah@{layer}threshold={threshold}"
        for layer in ("layers=0,", "", "layers=2,")
        for threshold in ("0.001", "0.002")
    }
    assert all(len(line) <= 100 for line in printed.splitlines() if line.startswith("|"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "opera"], "method opera: OPERA is a beam search, but one beam was requested"),
        (["--method", "opera", "--beam", "3", "--sample"], "but sampling was requested"),
        (
            ["--beam", "2", "--num_attn_candidates", "9999"],
            "method opera@num_attn_candidates=9999: num_attn_candidates=9999, but the model has "
            "642 tokens",
        ),
        (["--method", "dola", "--beam", "2"], "method dola: DoLa chooses one token after another"),
        (
            ["--method", "pai+eah", "--LAYER_NUM", "2"],
            "method pai+eah@layers=2: PAI and EAH both change layer 2",
        ),
        (
            ["--method", "dola", "--method-settings", "dola.layers=[9]"],
            "method dola@layers=9: layers=[9], but early layers are 0..3",
        ),
        (
            ["--method", "pai", "--method-settings", "pai.start_layer=4"],
            "start_layer=4, but the model has layers 0..3",
        ),
        (["--method", "vcd", "--method-settings", "vcd.alphas=1"], "vcd has no setting 'alphas'"),
    ],
)
def test_what_a_method_can_not_do_is_one_sentence(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert pope_eval.main([*pope(scenes, tmp_path), "--limit", "2", *arguments]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_eahs_threshold_given_as_operas_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings_of("--threshold", "0.002")

    assert "EAH's threshold is --THRES" in capsys.readouterr().err
