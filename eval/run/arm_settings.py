"""Settings of arms: parsed from text, merged with defaults, and formatted in an arm's name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from eah.errors import nearest
from eah.settings import THRESHOLDS, EAHConfig
from eval.errors import EvaluationError
from eval.files.answers import BASELINE
from eval.files.values import convert
from models.methods import LIST, read_layers, read_methods
from models.yaml_files import parse_yaml

if TYPE_CHECKING:
    from models.decoding.base import DecodingMethod

EAH: Final = "eah"
# Other names of methods that users may write.
ALIASES: Final = {"vissink": "var", "visattnsink": "var", "clearsight": "vaf", "ad-hh": "adhh"}
_EXPONENT: Final = re.compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+")


@dataclass(frozen=True, slots=True)
class ArmDefaults:
    """Settings of all arms, unless an arm overrides them.

    Attributes:
        model: EAH's settings in the model's config.
        eah: EAH's settings given by flags.
        methods: Settings by decoding method, given by flags.
        seed: Seed of methods that draw noise.
        published: Settings by decoding method that the model needs instead of the published ones.
    """

    model: Mapping[str, Any] = field(default_factory=lambda: {"preset": "paper"})
    eah: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int | None = None
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# EAH's settings --------------------------------------------------------------------------------


EAH_SETTINGS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "preset": (str, "paper, released-code or scale-free"),
    "layers": (read_layers, "a layer from 0, 0-2 or 1+3"),
    "threshold": (float, "a number, such as 0.002"),
    "threshold_unit": (str, "attention or uniform"),
    "head": (lambda text: None if text == "auto" else int(text), "auto, or an index from 0"),
    "receivers": (lambda text: text if text == "all" else int(text), "all, or a number of heads"),
    "min_density": (float, "a share of the image tokens, such as 0.15"),
    "rule": (lambda text: text.replace("-", "_"), ", ".join(THRESHOLDS)),
    "image_span": (lambda text: tuple(map(int, text.split(":"))), "start:stop, such as 34:610"),
    "vision_tokens": (str, "image, video or all"),
}


def read_eah(key: str, text: str) -> Any:
    """Return the value of one of EAH's settings in an arm.

    Raises:
        EvaluationError: If it can't be read.
    """
    reader, usage = EAH_SETTINGS[key]
    try:
        return reader(text)
    except ValueError as error:
        raise EvaluationError(
            f"{key}={text!r:.60} of an arm can't be read; write {usage}"
        ) from error


def eah_config(own: Mapping[str, Any], defaults: ArmDefaults) -> tuple[EAHConfig, dict[str, Any]]:
    """Return EAH's settings of an arm, and those that appear in its name."""
    flags = {} if "preset" in own else dict(defaults.eah)
    given = {**flags, **own}
    preset = given.pop("preset", None)
    start = dict(defaults.model) if preset is None else {"preset": preset}
    if "rule" in given:
        start = {key: value for key, value in start.items() if not key.startswith("threshold")}
    if "threshold" in given:
        # As with the paper's flag, it is an attention weight, regardless of the preset's unit.
        given.setdefault("threshold_unit", "attention")
    config = _build_config({**start, **given})
    model = _build_config(defaults.model)
    base = model if preset is None else EAHConfig.preset(preset)
    shown: dict[str, Any] = {} if base == model else {"preset": preset}
    threshold = (base.threshold, base.threshold_unit)
    if config.rule != base.rule and isinstance(config.rule, str):
        threshold = THRESHOLDS[config.rule]
    for name in EAH_SETTINGS:
        if name in ("preset", "threshold", "threshold_unit"):
            continue
        if (value := getattr(config, name)) != getattr(base, name):
            shown[name] = ":".join(map(str, value)) if name == "image_span" else value
    if (config.threshold, config.threshold_unit) != threshold:
        shown["threshold"] = config.threshold
        if config.threshold_unit != "attention":
            shown["threshold_unit"] = config.threshold_unit
    return config, shown


def _build_config(values: Mapping[str, Any]) -> EAHConfig:
    changes = dict(values)
    return EAHConfig.preset(changes.pop("preset", "paper"), **changes)


# Settings of decoding methods ------------------------------------------------------------------


def read_method_flags(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read `--method-settings`, such as "vcd.alpha=0.5", by method.

    Raises:
        EvaluationError: If one has another form, or its method is unknown.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, setting = key.partition(".")
        if not equals or not dot:
            raise EvaluationError(
                f"--method-settings {text!r}: write settings as METHOD.SETTING=VALUE"
            )
        if name not in read_methods():
            raise EvaluationError(
                f"--method-settings {text!r}: method {name!r} is unknown: "
                f"{nearest(name, read_methods())}"
            )
        setting = setting.replace("-", "_")
        if setting in changes.setdefault(name, {}):
            raise EvaluationError(
                f"--method-settings {name}.{setting} is given twice; pass one value"
            )
        changes[name][setting] = read_value(value)
    return changes


def read_value(text: str) -> Any:
    """Read a method's setting; "1+3" and "0-2" are lists of numbers, the rest is YAML.

    Raises:
        EvaluationError: If it can't be read.
    """
    try:
        if LIST.fullmatch(text) and not text.isdigit():
            return list(read_layers(text))
        if _EXPONENT.fullmatch(text):  # Python writes 1e-05, which YAML reads as text.
            return float(text)
        return parse_yaml(text)
    except ValueError as error:
        raise EvaluationError(
            f"setting {text!r:.60} can't be read; write a number, a word, or a list as 0-2 or 1+3"
        ) from error


def method_changes(published: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the published ones, in the order of the config."""
    given = {key: _normalise(value) for key, value in given.items()}
    published = {key: _normalise(value) for key, value in published.items()}
    order = [*published, *(key for key in given if key not in published)]
    return {
        key: given[key]
        for key in order
        if key in given and (key not in published or not _is_published(given[key], published[key]))
    }


def _normalise(value: Any) -> Any:
    """Return a sorted list of numbers, or a single number, so that equal arms have one name."""
    if not isinstance(value, (list, tuple)):
        return value
    if all(type(one) is int for one in value):
        value = sorted(set(value))
    return value[0] if len(value) == 1 else list(value)


def _is_published(value: Any, published: Any) -> bool:
    """Return whether a value is the published one; True is not 1."""
    return isinstance(value, bool) == isinstance(published, bool) and bool(value == published)


def build_method(name: str, settings: Mapping[str, Any]) -> DecodingMethod:
    """Return a decoding method with its settings; loads torch.

    Raises:
        EvaluationError: If a setting is unknown or not allowed.
    """
    module, _, attribute = str(read_methods()[name]["class"]).rpartition(".")
    kind = getattr(importlib.import_module(module), attribute)
    known = {item.name: item for item in fields(kind)}
    values = {}
    for setting, value in settings.items():
        if setting not in known:
            raise EvaluationError(f"{name} has no setting {setting!r}: {nearest(setting, known)}")
        declared = str(known[setting].type)
        if declared.startswith("str | tuple"):  # a word, or numbers
            declared = "str" if isinstance(value, str) else declared.removeprefix("str | ")
        if declared.startswith("tuple") and isinstance(value, str):
            raise EvaluationError(
                f"{name}: {setting}={value!r:.60}, but it is numbers, such as 2, 0-2 or 1+3"
            )
        values[setting] = convert(f"{name}.{setting}", declared, value, "--method")
    try:
        method: DecodingMethod = kind(**values)
    except ValueError as error:
        raise EvaluationError(f"{name}: {error}") from error
    return method


# Names -----------------------------------------------------------------------------------------


def arm_name(
    method: str | None, changes: Mapping[str, Any], shown: Mapping[str, Any], *, eah: bool = False
) -> str:
    """Return an arm's recorded name."""
    parts = [part for part in (method, EAH if eah else None) if part] or [BASELINE]
    # OPERA and EAH both have a threshold, DoLa and EAH both have layers.
    own = {f"{method}.{k}" if eah and k in EAH_SETTINGS else k: v for k, v in changes.items()}
    settings = [f"{key}={_format_value(value)}" for key, value in {**own, **shown}.items()]
    return "+".join(parts) + ("@" + ",".join(settings) if settings else "")


def _format_value(value: Any) -> str:
    """Return a value as it is written in a name."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)) and value and all(type(one) is int for one in value):
        first, last = value[0], value[-1]
        if len(value) == 1:
            return str(first)
        if list(value) == list(range(first, last + 1)):
            return f"{first}-{last}"
        return "+".join(map(str, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
