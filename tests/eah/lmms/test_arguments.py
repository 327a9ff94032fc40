"""Model arguments of lmms-eval are read as the arms of `eval/` read the same settings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

import eah
from eah import EAHConfig, EAHConfigError
from eval.run.arm_settings import EAH_SETTINGS, ArmDefaults, eah_config, read_eah
from tests.eah.lmms import stand_in

GIVEN = [
    "layers=1",
    "layers=0+1",
    "layers=0-3",
    "layers=1+3-5,threshold=0.01",
    "layers=1,threshold=0.002,preset=scale-free",
    "preset=scale-free",
    "preset=scale-free,threshold=1.5,threshold_unit=uniform",
    "preset=released-code",
    "preset=released-code,image_span=5:581",
    "rule=scale-free",
    "rule=scale_free,threshold=2,threshold_unit=uniform",
    "head=auto",
    "head=3,min_density=0.15",
    "receivers=2",
    "receivers=all,vision_tokens=image",
]


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return `eah.lmms.arguments` beside the stand-in of lmms-eval."""
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("eah.lmms.arguments")
    for name in [name for name in sys.modules if name.startswith("eah.lmms")]:
        del sys.modules[name]
    del eah.lmms


def constant(columns: Any, image: Any) -> None:
    """A rule, by name."""


@pytest.mark.parametrize("text", GIVEN)
def test_settings_mean_what_they_mean_in_an_arm(arguments: ModuleType, text: str) -> None:
    pairs = [one.split("=") for one in text.split(",")]
    own = {key: read_eah(key, value) for key, value in pairs}

    config, _ = eah_config(own, ArmDefaults())

    assert arguments.read(stand_in.parse(text), ()).config == config
    assert arguments.read(dict(pairs), ()).config == config  # all as text


def test_every_setting_is_an_argument(arguments: ModuleType) -> None:
    settings = {field.name for field in fields(EAHConfig)}

    assert set(arguments.READERS) == settings
    assert set(EAH_SETTINGS) - {"preset"} == settings - {"apply"}
    for name in ("rule", "apply"):
        where = f"{constant.__module__}:constant"
        found = arguments.read({name: where}, ()).config
        assert getattr(found, name).__doc__ == constant.__doc__
    direct = {"layers": (0, 2), "rule": constant, "image_span": (1, 3)}
    assert arguments.read(direct, ()).config == EAHConfig(**direct)  # from Python


def test_others_arguments_go_on(arguments: ModuleType) -> None:
    given = {"pretrained": "x", "layers": 2, "use_cache": True, "layer": 1, "zzz": 0}

    found = arguments.read(given, ("pretrained", "use_cache", "layer"))

    assert found.others == {"pretrained": "x", "use_cache": True, "layer": 1, "zzz": 0}
    assert found.config == EAHConfig(layers=(2,))
    assert arguments.read({}, ()).config == EAHConfig()
    assert arguments.read({"arm": "baseline"}, ()).config is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"treshold": 0.1}, "'treshold' is unknown: did you mean 'threshold'?"),
        ({"min-density": 0.1}, "did you mean 'min_density'?"),
        ({"Layers": 1}, "did you mean 'layers'?"),
        ({"LAYER_NUM": 1}, "did you mean 'layers'?"),
        ({"head_file": "x"}, "did you mean 'head'?"),
        ({"layers": "one"}, "layers='one' can't be read: write a layer from 0, 0-2 or 1+3"),
        ({"layers": 1.5}, "layers=1.5 can't be read"),
        ({"layers": True}, "layers=True can't be read"),
        ({"layers": "2-0"}, "layers='2-0' can't be read"),
        ({"layers": "0-99999999"}, "can't be read"),
        ({"layers": "1+1"}, "names a layer twice"),
        ({"layers": None}, "layers=None, but layers is a tuple"),
        ({"threshold": "high"}, "threshold='high' can't be read: write a number"),
        ({"threshold": 2}, "threshold=2.0, but a mean attention weight is in (0, 1)"),
        ({"threshold": float("inf")}, "a finite number is needed"),
        ({"head": -1.0}, "head=-1.0 can't be read"),
        ({"head": "-1"}, "head=-1, but a head is an index"),
        ({"receivers": "some"}, "receivers='some' can't be read: write all"),
        ({"image_span": "34"}, "a span is (start, stop)"),
        ({"rule": "papr"}, "did you mean 'paper'"),
        ({"rule": "no.such:rule"}, "rule='no.such:rule' can't be read"),
        ({"apply": "half"}, "apply='half' can't be read: write package.module:function"),
        ({"vision_tokens": "img"}, "vision_tokens='img', but it is one of"),
        ({"preset": "scale_free"}, "did you mean 'scale-free'"),
        ({"arm": "plain"}, "arm='plain' is unknown"),
        ({"heads": 1}, "heads=1, but it must be a file name, such as heads.jsonl"),
        ({"heads": ""}, "heads='', but it must be a file name, such as heads.jsonl"),
        ({"arm": "baseline", "layers": 1}, "layers=... with arm=baseline"),
        ({"arm": "baseline", "heads": "x"}, "heads=... with arm=baseline"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(
    arguments: ModuleType, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EAHConfigError) as error:
        arguments.read(given, ("pretrained",))

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
