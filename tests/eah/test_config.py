"""Settings: what the presets are, and what each wrong value is told."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from eah import EAHConfig, EAHConfigError
from eah.modeling_llama_eah import PRESETS

FIELDS = {
    "layers": (1,),
    "threshold": 0.002,
    "threshold_unit": "attention",
    "head": None,
    "min_density": 0.0,
    "image_span": None,
    "column_divisor": "visible-rows",
    "tie_break": "lowest-index",
    "head_zero": "may-win",
    "batch_rows": "all",
    "rounding": "none",
}
TABLE = {
    "paper": {},
    "released-code": {
        "layers": (15,),
        "threshold": 0.0008,
        "image_span": (36, 611),
        "column_divisor": "released",
        "head_zero": "ignored",
        "batch_rows": "first",
        "rounding": "query-dtype",
    },
    "scale-free": {
        "threshold": 1.25,
        "threshold_unit": "uniform",
        "tie_break": "image-attention",
    },
}


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


def test_the_rule_holds_the_settings_of_the_arithmetic() -> None:
    config = EAHConfig.preset("released-code", head=3, min_density=0.5)

    rule = dataclasses.asdict(config.rule)

    settings = dataclasses.asdict(config)
    assert rule == {name: settings[name] for name in FIELDS if name not in ("layers", "image_span")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"threshold_unit": "percent"},
            "threshold_unit='percent', but it is one of ('attention', 'uniform')",
        ),
        (
            {"column_divisor": "all"},
            "column_divisor='all', but it is one of ('visible-rows', 'released')",
        ),
        ({"tie_break": 0}, "tie_break=0, but it is one of ('lowest-index', 'image-attention')"),
        ({"head_zero": "no"}, "head_zero='no', but it is one of ('may-win', 'ignored')"),
        ({"batch_rows": "last"}, "batch_rows='last', but it is one of ('all', 'first')"),
        ({"rounding": "bf16"}, "rounding='bf16', but it is one of ('none', 'query-dtype')"),
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
            "threshold=0.0, but a mean attention weight lies in (0, 1), exclusive",
        ),
        ({"threshold": 1}, "threshold=1, but a mean attention weight lies in (0, 1)"),
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
        (
            {"column_divisor": "released"},
            "set image_span=(start, stop) too, (36, 611) in the authors' file",
        ),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EAHConfigError, match=re.escape(message)):
        EAHConfig(**settings)


@pytest.mark.parametrize("settings", [{"min_density": 0.0}, {"min_density": 1.0}, {"head": 0}])
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
