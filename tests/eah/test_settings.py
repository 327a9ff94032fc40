"""Settings: what the presets are, and what each wrong value is told."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from eah import EAHConfig, EAHConfigError
from eah.settings import (
    PRESETS,
    DropInSettings,
    settings_from_environment,
)

FIELDS = {
    "layers": (1,),
    "threshold": 0.002,
    "threshold_unit": "attention",
    "head": None,
    "min_density": 0.0,
    "image_span": None,
    "rule": "paper",
    "receivers": "all",
    "vision_tokens": "all",
    "apply": None,
}
TABLE = {
    "paper": {},
    "released-code": {
        "layers": (15,),
        "threshold": 0.0008,
        "image_span": (36, 611),
        "rule": "released_code",
    },
    "scale-free": {
        "threshold": 1.25,
        "threshold_unit": "uniform",
        "rule": "scale_free",
    },
}


def my_rule(columns: Any, image: Any) -> Any:
    raise AssertionError("settings call no rule")


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_those_of_the_design(name: str) -> None:
    assert dataclasses.asdict(EAHConfig.preset(name)) == {**FIELDS, **TABLE[name]}


def test_there_is_no_other_preset() -> None:
    assert set(PRESETS) == set(TABLE)


def test_the_default_is_the_paper() -> None:
    assert EAHConfig() == EAHConfig.preset("paper")


def test_a_preset_can_be_changed_in_part() -> None:
    changed = EAHConfig.preset("released-code", layers=(2,), image_span=(1, 7))

    expected = {**FIELDS, **TABLE["released-code"], "layers": (2,), "image_span": (1, 7)}
    assert dataclasses.asdict(changed) == expected
    assert EAHConfig.preset("released-code").layers == (15,)


def test_settings_are_frozen_and_hashable() -> None:
    config = EAHConfig()

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.threshold = 0.1  # type: ignore[misc]

    assert {config, EAHConfig()} == {config}


def test_lists_become_tuples_and_layers_are_sorted() -> None:
    config = EAHConfig(layers=[4, 1], image_span=[3, 9])  # type: ignore[arg-type]

    assert config.layers == (1, 4)
    assert config.image_span == (3, 9)


@pytest.mark.parametrize("rule", ["paper", "scale_free", "released_code"])
def test_a_rule_without_threshold_gets_that_of_its_preset(rule: str) -> None:
    preset = EAHConfig.preset(rule.replace("_", "-"))

    config = EAHConfig(layers=preset.layers, rule=rule, image_span=preset.image_span)

    assert config == preset
    assert config.threshold is not None


def test_a_threshold_alone_is_of_the_unit_of_the_rule() -> None:
    assert EAHConfig(threshold=0.1).threshold_unit == "attention"
    assert EAHConfig(threshold=0.1, rule="scale_free").threshold_unit == "uniform"


def test_the_named_rules_are_called_with_the_settings_of_the_threshold() -> None:
    span = (1, 4)

    assert EAHConfig(threshold=0.5).rule_arguments == {
        "threshold": 0.5,
        "threshold_unit": "attention",
    }
    assert EAHConfig(rule="scale_free").rule_arguments == {
        "threshold": 1.25,
        "threshold_unit": "uniform",
    }
    released = EAHConfig(rule="released_code", image_span=span)
    assert released.rule_arguments == {"threshold": 0.0008}


def test_a_function_may_be_the_rule_and_has_a_threshold_of_its_own() -> None:
    config = EAHConfig(rule=my_rule, receivers=3, min_density=0.5)

    assert config.rule is my_rule
    assert (config.threshold, config.threshold_unit) == (None, None)
    assert config.rule_arguments == {}
    assert {config, EAHConfig(rule=my_rule, receivers=3, min_density=0.5)} == {config}


@pytest.mark.parametrize(
    ("settings", "is_per_prompt"),
    [
        ({}, True),
        ({"rule": "scale_free", "receivers": 2, "min_density": 0.1}, True),
        ({"rule": "released_code", "image_span": (1, 3)}, False),
        ({"image_span": (1, 3)}, False),
        ({"rule": my_rule}, False),
        ({"apply": my_rule}, False),
    ],
)
def test_whether_a_prompts_place_in_the_batch_can_matter(
    settings: dict[str, Any], is_per_prompt: bool
) -> None:
    assert EAHConfig(**settings).is_per_prompt is is_per_prompt


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"threshold_unit": "percent"},
            "threshold_unit='percent', but with rule='paper' it is one of ('attention', 'uniform')",
        ),
        (
            {"rule": "released_code", "image_span": (1, 3), "threshold_unit": "uniform"},
            "threshold_unit='uniform', but with rule='released_code' it is one of ('attention',)",
        ),
        (
            {"threshold_unit": "uniform"},
            "threshold_unit='uniform' without a threshold: the default 0.002 of rule='paper' "
            "counts as 'attention'; give threshold too",
        ),
        (
            {"rule": "scale_free", "threshold_unit": "attention"},
            "threshold_unit='attention' without a threshold: the default 1.25 of "
            "rule='scale_free' counts as 'uniform'; give threshold too",
        ),
        (
            {"rule": "scalefree"},
            "rule='scalefree' is not a function or the name of a rule: did you mean 'scale_free'? "
            "known are paper, released_code, scale_free",
        ),
        ({"rule": "xyz"}, "rule='xyz' is not a function or the name of a rule: known are paper, "),
        ({"rule": None}, "rule=None is not a function or the name of a rule: known are paper, "),
        ({"rule": ["paper"]}, "rule=['paper'] is not a function or the name of a rule"),
        (
            {"rule": my_rule, "threshold": 0.1},
            "threshold=0.1 with your own rule: bind it into the function, for example with "
            "functools.partial",
        ),
        (
            {"rule": my_rule, "threshold_unit": "uniform"},
            "with your own rule: bind it into the function",
        ),
        (
            {"rule": "released_code"},
            "rule='released_code' counts from the ends of a fixed span: set "
            "image_span=(start, stop) too, (36, 611) in the authors' file",
        ),
        ({"receivers": 0}, "receivers=0, but it is 'all' or a number of heads from 1"),
        ({"receivers": -2}, "receivers=-2, but it is 'all' or a number of heads from 1"),
        ({"receivers": 1.0}, "receivers=1.0, but it is 'all' or a number of heads from 1"),
        ({"receivers": True}, "receivers=True, but it is 'all' or a number of heads from 1"),
        ({"receivers": None}, "receivers=None, but it is 'all' or a number of heads from 1"),
        ({"receivers": "some"}, "receivers='some', but it is 'all' or a number of heads from 1"),
        (
            {"vision_tokens": "audio"},
            "vision_tokens='audio', but it is one of ('image', 'video', 'all')",
        ),
        ({"vision_tokens": None}, "vision_tokens=None, but it is one of ('image', 'video', 'all')"),
        ({"apply": "share"}, "apply='share', but it is a function or None"),
        (
            {"apply": my_rule, "receivers": 3},
            "receivers=3 with apply=...: your function decides which heads get "
            "the map; leave receivers out",
        ),
        ({"layers": ()}, "layers=(), but layers is a tuple of indices from 0, such as (1,)"),
        ({"layers": 1}, "layers=1, but layers is a tuple"),
        ({"layers": (-1,)}, "layers=(-1,), but layers is a tuple of indices from 0"),
        ({"layers": (1.0,)}, "layers=(1.0,), but layers is a tuple of indices from 0"),
        ({"layers": (True,)}, "layers=(True,), but layers is a tuple of indices from 0"),
        ({"layers": (2, 2)}, "layers=(2, 2) names a layer twice; name each once"),
        ({"threshold": "0.002"}, "threshold='0.002', but a finite number is needed"),
        ({"threshold": True}, "threshold=True, but a finite number is needed"),
        (
            {"threshold": 0.0},
            "threshold=0.0, but a mean attention weight is in (0, 1), exclusive",
        ),
        ({"threshold": 1}, "threshold=1, but a mean attention weight is in (0, 1)"),
        ({"threshold": -0.1}, "the paper uses 0.002"),
        ({"threshold": float("nan")}, "threshold=nan, but a finite number"),
        (
            {"threshold": 0.0, "threshold_unit": "uniform"},
            "threshold=0.0, but a multiple of uniform attention is above 0; "
            "the preset scale-free uses 1.25",
        ),
        ({"min_density": 1.01}, "min_density=1.01, but it is a share in [0, 1]"),
        ({"min_density": -0.5}, "min_density=-0.5, but it is a share in [0, 1]"),
        ({"min_density": float("nan")}, "min_density=nan, but it is a share in [0, 1]"),
        ({"head": -1}, "head=-1, but a head is an index from 0, or None for the densest one"),
        ({"head": "auto"}, "head='auto', but a head is an index from 0"),
        ({"head": True}, "head=True, but a head is an index from 0"),
        (
            {"image_span": (5, 5)},
            "image span (5, 5), but a span is (start, stop) with 0 <= start < stop",
        ),
        ({"image_span": (-1, 5)}, "image span (-1, 5), but"),
        ({"image_span": (1, 2, 3)}, "image span (1, 2, 3), but"),
        ({"image_span": (0.0, 2.0)}, "image span (0.0, 2.0), but"),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EAHConfigError, match=re.escape(message)):
        EAHConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_density": 0.0},
        {"min_density": 1.0},
        {"head": 0},
        {"receivers": 1},
        {"vision_tokens": "image"},
        {"vision_tokens": "video"},
    ],
)
def test_the_ends_of_a_range_are_allowed(settings: dict[str, Any]) -> None:
    (name,) = settings

    assert getattr(EAHConfig(**settings), name) == settings[name]


def test_a_multiple_of_uniform_attention_may_exceed_one() -> None:
    assert EAHConfig(threshold=7.5, threshold_unit="uniform").threshold == 7.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: EAHConfig.preset("papper"),
            "preset 'papper' is unknown: did you mean 'paper'? "
            "known are paper, released-code, scale-free",
        ),
        (
            lambda: EAHConfig.preset("xyz"),
            "preset 'xyz' is unknown: known are paper, released-code, scale-free",
        ),
        (
            lambda: EAHConfig.preset("paper", thresh=0.1),
            "setting 'thresh' is unknown: did you mean 'threshold'",
        ),
    ],
)
def test_an_unknown_name_is_told_the_nearest(call: Any, message: str) -> None:
    with pytest.raises(EAHConfigError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "settings",
    [
        {"min_density": "x"},
        {"min_density": None},
        {"image_span": 5},
        {"threshold": float("inf"), "threshold_unit": "uniform"},
        {"threshold": float("nan")},
    ],
)
def test_values_of_another_kind_are_config_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(EAHConfigError, match=next(iter(settings)).replace("_", ".")):
        EAHConfig(**settings)


PAPER = DropInSettings(EAHConfig())


@pytest.mark.parametrize(
    ("environment", "changes"),
    [
        ({"EAH_MIN_DENSITY": "0.15"}, {"min_density": 0.15}),
        ({"EAH_MIN_DENSITY": " 0 "}, {"min_density": 0.0}),
        ({"EAH_MIN_DENSITY": ""}, {}),
        ({"EAH_RECEIVERS": "8"}, {"receivers": 8}),
        ({"EAH_RECEIVERS": "all"}, {"receivers": "all"}),
        (
            {"EAH_RECEIVERS": "3", "EAH_MIN_DENSITY": "1", "THRES": "0.01"},
            {"receivers": 3, "min_density": 1.0, "threshold": 0.01},
        ),
    ],
)
def test_density_and_receivers_come_from_the_environment(
    environment: dict[str, str], changes: dict[str, Any]
) -> None:
    expected = DropInSettings(EAHConfig(**changes))

    assert settings_from_environment(environment) == expected


def test_environment_variables_change_a_preset_in_part() -> None:
    environment = {"EAH_PRESET": "scale-free", "EAH_MIN_DENSITY": "0.2", "EAH_RECEIVERS": "2"}
    config = EAHConfig.preset("scale-free", min_density=0.2, receivers=2)

    assert settings_from_environment(environment) == DropInSettings(config, layers_named=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EAH_MIN_DENSITY", "1.5", "min_density=1.5, but it is a share in [0, 1]; write a share"),
        ("EAH_MIN_DENSITY", "nan", "min_density=nan, but it is a share in [0, 1]"),
        ("EAH_MIN_DENSITY", "half", "write a share of the image tokens, such as 0.15"),
        ("EAH_RECEIVERS", "0", "receivers=0, but it is 'all' or a number of heads from 1"),
        ("EAH_RECEIVERS", "many", "write all, or a number of heads"),
        ("EAH_RECEIVERS", "2.5", "write all, or a number of heads"),
    ],
)
def test_an_unusable_environment_variable_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(EAHConfigError) as error:
        settings_from_environment({name: value})

    assert str(error.value).startswith(f"{name}={value!r} can't be used: ")
    assert message in str(error.value)


def test_density_and_receivers_are_named_where_they_are_set() -> None:
    plain = "layers 1; densest head; threshold 0.002 (attention)"
    environment = {"EAH_MIN_DENSITY": "0.15", "EAH_RECEIVERS": "8"}

    assert str(PAPER) == f"{plain}; image tokens found by their embeddings"
    assert str(settings_from_environment(environment)) == (
        f"{plain}; min_density 0.15; 8 receivers; image tokens found by their embeddings"
    )
