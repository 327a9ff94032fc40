"""Read EAH's settings from lmms-eval's model arguments.

lmms-eval splits `--model_args` at commas and converts integers, floats, true and false; other
values are text. Several layers are written as in an arm: 0+1 or 0-2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import Any, Final

from eah.errors import EAHConfigError, nearest
from eah.settings import PRESETS, THRESHOLDS, EAHConfig

ARM: Final = "arm"
ARMS: Final = ("eah", "baseline")
HEADS: Final = "heads"
PRESET: Final = "preset"
MOST_LAYERS: Final = 1000
CLOSE: Final = 0.6  # similarity of a misspelt name


def _read_layers(text: str) -> tuple[int, ...]:
    """Read "2", "0-2" (with both ends) or "1+3"."""
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        start, end = int(first), int(last if dash else first)
        if not 0 <= start <= end < MOST_LAYERS:
            raise ValueError("no such layers")
        found += range(start, end + 1)
    return tuple(found)


def _read_rule(text: str) -> Any:
    return resolve_name(text) if ":" in text else text.replace("-", "_")


def _read_function(text: str) -> Any:
    if ":" not in text:
        raise ValueError("it does not name a function of a module")
    return resolve_name(text)


READERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "layers": (_read_layers, "a layer from 0, 0-2 or 1+3"),
    "threshold": (float, "a number, such as 0.002"),
    "threshold_unit": (str, "attention or uniform"),
    "head": (lambda text: None if text == "auto" else int(text), "auto, or an index from 0"),
    "min_density": (float, "a share of the image tokens, such as 0.15"),
    "image_span": (lambda text: tuple(map(int, text.split(":"))), "start:stop, such as 34:610"),
    "rule": (_read_rule, f"{', '.join(THRESHOLDS)}, or package.module:function"),
    "receivers": (lambda text: text if text == "all" else int(text), "all, or a number of heads"),
    "vision_tokens": (str, "image, video or all"),
    "apply": (_read_function, "package.module:function"),
}
SETTINGS: Final = tuple(field.name for field in fields(EAHConfig))
NAMES: Final = (ARM, HEADS, PRESET, *SETTINGS)
"""All arguments of EAH."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a model.

    Attributes:
        config: EAH's settings; None in the baseline.
        heads: File for the chosen heads; None for no such file.
        others: Arguments of lmms-eval's own class.
    """

    config: EAHConfig | None
    heads: str | None
    others: dict[str, Any]


def read(given: Mapping[str, Any], own: Collection[str]) -> Arguments:
    """Separate EAH's arguments from the others, and check them.

    Args:
        given: All arguments by name.
        own: Argument names of lmms-eval's own class, which also gets unknown arguments.
    Raises:
        EAHConfigError: If an argument of EAH can't be read, or one looks like a misspelt one.
    """
    ours = {name: value for name, value in given.items() if name in NAMES}
    others = {name: value for name, value in given.items() if name not in NAMES}
    for name in others:
        plain = name.lower().replace("-", "_")
        if name not in own and (close := get_close_matches(plain, NAMES, n=1, cutoff=CLOSE)):
            raise EAHConfigError(
                f"model argument {name!r} is unknown: did you mean {close[0]!r}? EAH's are "
                f"{', '.join(NAMES)}"
            )
    arm, heads = ours.pop(ARM, ARMS[0]), ours.pop(HEADS, None)
    if arm not in ARMS:
        raise EAHConfigError(f"arm={arm!r} is unknown: {nearest(str(arm), ARMS)}")
    if heads is not None and not (isinstance(heads, str) and heads):
        raise EAHConfigError(f"heads={heads!r}, but it must be a file name, such as heads.jsonl")
    if arm == ARMS[0]:
        return Arguments(read_config(ours), heads, others)
    if ours or heads:
        first = next(iter([*ours, HEADS]))
        raise EAHConfigError(
            f"{first}=... with arm=baseline, which runs without EAH: leave one out"
        )
    return Arguments(None, None, others)


def read_config(given: Mapping[str, Any]) -> EAHConfig:
    """Return EAH's settings, as the arms of `eval/` read them.

    Args:
        given: Settings by name, and `preset`. A threshold without a unit is an attention weight,
            regardless of the preset's unit.
    Raises:
        EAHConfigError: If a value can't be read or is not allowed.
    """
    values = {name: _read_value(name, value) for name, value in given.items() if name != PRESET}
    preset = given.get(PRESET, "paper")
    if preset not in PRESETS:
        raise EAHConfigError(f"preset={preset!r} is unknown: {nearest(str(preset), PRESETS)}")
    if "threshold" in values and not callable(values.get("rule")):
        values.setdefault("threshold_unit", "attention")
    return EAHConfig.preset(preset, **values)


def _read_value(name: str, value: Any) -> Any:
    """Read one of EAH's settings; Python objects are returned unchanged."""
    if not isinstance(value, (str, int, float)):
        return value
    reader, usage = READERS[name]
    try:
        return reader(str(value))
    except (ValueError, ImportError, AttributeError) as error:
        raise EAHConfigError(f"{name}={value!r:.80} can't be read: write {usage}") from error
