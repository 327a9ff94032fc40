"""The arms of a run: EAH or not, and how tokens are chosen.

A name such as "opera+eah" is made of "baseline", "eah" and the methods of `configs/methods.yaml`,
which names each one's class and published settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, Final

import yaml

from eah.errors import nearest
from eval.errors import EvaluationError
from models.settings import CONFIGS, read_yaml

BASELINE, EAH = "baseline", "eah"
DEFAULT_ARMS: Final = (BASELINE, EAH)
# What the paper's command lines mean by OPERA's flags: OPERA on top of EAH.
OPERA_ARMS: Final = (BASELINE, "opera+eah")
OPERA: Final = "opera"
OPERA_FLAGS: Final = ("scale_factor", "threshold", "num_attn_candidates", "penalty_weights")


@dataclass(frozen=True, slots=True)
class ArmName:
    """What the name of an arm says.

    Attributes:
        eah: Whether EAH is enabled.
        method: Name of the decoding method; None for transformers' own decoding.
    """

    eah: bool
    method: str | None

    def __str__(self) -> str:
        """Return the name as it is recorded, whatever order it was written in."""
        parts = [self.method] if self.method else []
        return "+".join([*parts, *([EAH] if self.eah else [])]) or BASELINE


@cache
def read_methods() -> dict[str, dict[str, Any]]:
    """Return class and published settings of every decoding method, by name."""
    return read_yaml(CONFIGS / "methods.yaml")


def parse_arm(name: str) -> ArmName:
    """Read the name of an arm.

    Raises:
        EvaluationError: If a part of it is unknown, or it has two decoding methods.
    """
    if name == BASELINE:
        return ArmName(eah=False, method=None)
    parts = name.split("+")
    known = [BASELINE, EAH, *read_methods()]
    for part in parts:
        if part not in known[1:]:
            which = f"method {part!r}" if len(parts) == 1 else f"method {name!r}: {part!r}"
            if part == BASELINE:
                raise EvaluationError(f"{which} stands alone; write two arms with a space between")
            raise EvaluationError(f"{which} is unknown: {nearest(part, known)}")
    methods = [part for part in parts if part != EAH]
    if len(methods) > 1 or len(set(parts)) < len(parts):
        raise EvaluationError(
            f"method {name!r}: an arm has one of {', '.join(read_methods())}, and eah beside it or "
            "not; write two arms with a space between"
        )
    return ArmName(eah=EAH in parts, method=methods[0] if methods else None)


def parse_arms(names: Iterable[str]) -> tuple[str, ...]:
    """Return arms by the names that they are recorded under.

    Raises:
        EvaluationError: If there is none, one is unknown, or two are the same.
    """
    arms = tuple(str(parse_arm(name)) for name in names)
    if not arms or len(set(arms)) < len(arms):
        raise EvaluationError(f"method {list(arms)}: name at least one, each once")
    return arms


def method_settings(
    arms: Iterable[str], opera: Mapping[str, Any], changes: Iterable[str]
) -> dict[str, Any]:
    """Return the decoding methods of a run, built with their settings.

    Args:
        arms: Names of the arms.
        opera: OPERA's settings by its own flags.
        changes: Settings of any method, as "vcd.alpha=0.5".
    Returns:
        A `models.decoding.base.DecodingMethod` by name.
    Raises:
        EvaluationError: If a setting is unknown, not allowed, or of a method that no arm has.
    """
    used = {method for arm in arms if (method := parse_arm(arm).method)}
    changed: dict[str, dict[str, Any]] = {OPERA: dict(opera)} if opera else {}
    for text in changes:
        name, setting, value = _change(text)
        changed.setdefault(name, {})[setting] = value
    for name, settings in changed.items():
        if name not in used:
            flag = f"--{next(iter(settings))}" if name == OPERA and opera else f"{name}."
            raise EvaluationError(
                f"{flag} is a setting of {name}, which no arm of this run has "
                f"({', '.join(arms)}); add {name} or {name}+eah to --method"
            )
    return {name: _built(name, changed.get(name, {})) for name in sorted(used)}


def as_record(methods: Mapping[str, Any]) -> dict[str, Any]:
    """Return methods as they are recorded with a run."""
    return {name: asdict(method) for name, method in methods.items()}


def _change(text: str) -> tuple[str, str, Any]:
    key, equals, value = text.partition("=")
    name, dot, setting = key.partition(".")
    if not equals or not dot:
        raise EvaluationError(
            f"--method-settings {text!r}: settings are written METHOD.SETTING=VALUE"
        )
    if name not in read_methods():
        raise EvaluationError(
            f"--method-settings {text!r}: method {name!r} is unknown: "
            f"{nearest(name, read_methods())}"
        )
    return name, setting.replace("-", "_"), yaml.safe_load(value)


def _built(name: str, changes: Mapping[str, Any]) -> Any:
    published = dict(read_methods()[name])
    module, _, attribute = str(published.pop("class")).rpartition(".")
    kind = getattr(importlib.import_module(module), attribute)
    known = {field.name: field for field in fields(kind)}
    for setting, value in changes.items():
        if setting not in known:
            raise EvaluationError(f"{name} has no setting {setting!r}: {nearest(setting, known)}")
        published[setting] = _converted(name, setting, str(known[setting].type), value)
    try:
        return kind(**published)
    except ValueError as error:
        raise EvaluationError(f"{name}: {error}") from error


def _converted(name: str, setting: str, kind: str, value: Any) -> Any:
    """Return a setting's value as its type has it."""
    if isinstance(value, list) and "tuple" in kind:
        return tuple(value)
    if kind == "float" and type(value) is int:
        return float(value)
    allowed = {"float": float, "int": int, "bool": bool}.get(kind)
    if allowed is not None and type(value) is not allowed:
        raise EvaluationError(f"{name}.{setting} is {value!r}, but it must be of type {kind}")
    return value
