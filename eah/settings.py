"""Settings of EAH: presets, validation, and the environment variables of the drop-in file.

Needs the standard library only, so that commands can check settings before torch is loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from eah.errors import EAHConfigError, nearest

# 0.002 is quoted in secondary sources and in the README of the authors' release. It suits prompts
# of about 620 tokens, where uniform attention is 0.0016.
PAPER_THRESHOLD: Final = 0.002
# A literal in the authors' modeling_llama_eah.py, checked by running it.
RELEASED_THRESHOLD: Final = 0.0008
# Ours, a multiple of what uniform attention would give the same column, for prompts of any length:
# on a prompt of 40 tokens every column of every head passes 0.002.
SCALE_FREE_THRESHOLD: Final = 1.25

# Rule -> default threshold and its unit.
THRESHOLDS: Final[dict[str, tuple[float, str]]] = {
    "paper": (PAPER_THRESHOLD, "attention"),
    "scale_free": (SCALE_FREE_THRESHOLD, "uniform"),
    "released_code": (RELEASED_THRESHOLD, "attention"),
}
# Layers count from 0. released-code: layer and image columns are literals in the authors' file.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "paper": {"layers": (1,), "rule": "paper"},
    "released-code": {"layers": (15,), "rule": "released_code", "image_span": (36, 611)},
    "scale-free": {"layers": (1,), "rule": "scale_free"},
}
UNITS: Final = ("attention", "uniform")
VISION_TOKENS: Final = ("image", "video", "all")


@dataclass(frozen=True)
class EAHConfig:
    """Where and how EAH acts; the defaults are the preset "paper".

    Attributes:
        layers: Target decoder layers, counted from 0.
        threshold: An image column whose mean attention is greater is a vision sink; None for the
            rule's default.
        threshold_unit: "attention" (a mean attention weight, in (0, 1)) or "uniform" (a multiple of
            the column's mean under uniform attention); None for the rule's default.
        head: Index of the head to share, regardless of the counts; None for the densest one.
        min_density: Smallest share of sinks among the image tokens that the densest head needs,
            the paper's gamma, in [0, 1].
        image_span: Image tokens [start, stop) of every prompt, not counting padding; None locates
            the image tokens of each prompt.
        rule: "paper", "scale_free", "released_code", or a function `(columns, image) -> Choice`
            (see `eah.method`), which has its own threshold.
        receivers: "all", or the number of heads that get the densest head's map: those with fewest
            sinks, lowest index first. The paper's ablation does not specify them; this is ours.
        vision_tokens: Which placeholder tokens count as image tokens: "image", "video" or "all".
        apply: Function `(query, key, value, choice, attend) -> output` that replaces
            `eah.method.share_map`; None for `share_map`.
    """

    layers: tuple[int, ...] = (1,)
    threshold: float | None = None
    threshold_unit: str | None = None
    head: int | None = None
    min_density: float = 0.0
    image_span: tuple[int, int] | None = None
    rule: str | Callable[..., Any] = "paper"
    receivers: int | str = "all"
    vision_tokens: str = "all"
    apply: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        """Validate every value and fill in the rule's defaults.

        Raises:
            EAHConfigError: Naming the setting, its value and what is allowed.
        """
        object.__setattr__(self, "layers", validate_layers(self.layers))
        self._set_threshold()
        if not _is_number(self.min_density) or not 0.0 <= self.min_density <= 1.0:
            raise EAHConfigError(f"min_density={self.min_density!r}, but it is a share in [0, 1]")
        if self.head is not None and (not is_int(self.head) or self.head < 0):
            raise EAHConfigError(
                f"head={self.head!r}, but a head is an index from 0, or None for the densest one"
            )
        count = self.receivers
        if count != "all" and (not is_int(count) or count < 1):  # type: ignore[operator]  # an int
            raise EAHConfigError(
                f"receivers={count!r}, but it is 'all' or a number of heads from 1"
            )
        if self.vision_tokens not in VISION_TOKENS:
            raise EAHConfigError(
                f"vision_tokens={self.vision_tokens!r}, but it is one of {VISION_TOKENS}"
            )
        if self.image_span is not None:
            object.__setattr__(self, "image_span", validate_span(self.image_span))
        elif self.rule == "released_code":
            raise EAHConfigError(
                "rule='released_code' counts from the ends of a fixed span: set "
                "image_span=(start, stop) too, (36, 611) in the authors' file"
            )
        if self.apply is not None and not callable(self.apply):
            raise EAHConfigError(f"apply={self.apply!r}, but it is a function or None")
        if self.apply is not None and self.receivers != "all":
            raise EAHConfigError(
                f"receivers={self.receivers} with apply=...: your function decides "
                "which heads get the map; leave receivers out"
            )

    def _set_threshold(self) -> None:
        """Validate the rule and its threshold, and fill in the default."""
        if callable(self.rule):
            if self.threshold is not None or self.threshold_unit is not None:
                raise EAHConfigError(
                    f"threshold={self.threshold!r} with your own rule: bind it into the "
                    "function, for example with functools.partial"
                )
            return
        if not isinstance(self.rule, str) or self.rule not in THRESHOLDS:
            raise EAHConfigError(
                f"rule={self.rule!r} is not a function or the name of a rule: "
                f"{nearest(str(self.rule), THRESHOLDS)}"
            )
        threshold, unit = THRESHOLDS[self.rule]
        units = UNITS if self.rule != "released_code" else ("attention",)
        if self.threshold_unit not in (None, *units):
            raise EAHConfigError(
                f"threshold_unit={self.threshold_unit!r}, but with rule={self.rule!r} it is one of "
                f"{units}"
            )
        if self.threshold_unit not in (None, unit) and self.threshold is None:
            raise EAHConfigError(
                f"threshold_unit={self.threshold_unit!r} without a threshold: the default "
                f"{threshold} of rule={self.rule!r} counts as {unit!r}; give threshold too"
            )
        object.__setattr__(self, "threshold_unit", self.threshold_unit or unit)
        object.__setattr__(
            self, "threshold", threshold if self.threshold is None else self.threshold
        )
        validate_threshold(self.threshold, self.threshold_unit)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> EAHConfig:
        """Return a named preset with some settings changed.

        Args:
            name: "paper", "released-code" or "scale-free".
            changes: Settings that differ from the preset.
        Raises:
            EAHConfigError: If the preset or a setting is unknown, or a value is not allowed.
        """
        if name not in PRESETS:
            raise EAHConfigError(f"preset {name!r} is unknown: {nearest(name, PRESETS)}")
        known = [field.name for field in fields(cls)]
        for setting in changes:
            if setting not in known:
                raise EAHConfigError(f"setting {setting!r} is unknown: {nearest(setting, known)}")
        return cls(**{**PRESETS[name], **changes})

    @property
    def rule_arguments(self) -> dict[str, Any]:
        """Arguments of the rule besides columns and image."""
        if callable(self.rule):
            return {}
        if self.rule == "released_code":
            return {"threshold": self.threshold}
        return {"threshold": self.threshold, "threshold_unit": self.threshold_unit}

    @property
    def is_per_prompt(self) -> bool:
        """Whether EAH treats a prompt the same in every batch."""
        return self.rule in ("paper", "scale_free") and self.apply is None and not self.image_span


def validate_threshold(threshold: object, unit: str | None) -> None:
    """Check a threshold.

    Raises:
        EAHConfigError: If it is not a number that its unit allows.
    """
    if not _is_number(threshold):
        raise EAHConfigError(f"threshold={threshold!r}, but a finite number is needed")
    if unit == "attention" and not 0.0 < threshold < 1.0:  # type: ignore[operator]  # a number
        raise EAHConfigError(
            f"threshold={threshold}, but a mean attention weight is in (0, 1), exclusive; the "
            "paper uses 0.002"
        )
    if unit == "uniform" and not threshold > 0.0:  # type: ignore[operator]  # a number
        raise EAHConfigError(
            f"threshold={threshold}, but a multiple of uniform attention is above 0; the preset "
            "scale-free uses 1.25"
        )


def validate_layers(layers: object) -> tuple[int, ...]:
    """Return layer indices in ascending order.

    Raises:
        EAHConfigError: If they are not non-negative ints, or duplicated.
    """
    indices = tuple(layers) if isinstance(layers, (tuple, list)) else ()
    if not indices or not all(is_int(layer) and layer >= 0 for layer in indices):
        raise EAHConfigError(
            f"layers={layers!r}, but layers is a tuple of indices from 0, such as (1,)"
        )
    if len(set(indices)) < len(indices):
        raise EAHConfigError(f"layers={indices} names a layer twice; name each once")
    return tuple(sorted(indices))


def validate_span(span: object) -> tuple[int, int]:
    """Return a span [start, stop) of image tokens as a pair of ints.

    Raises:
        EAHConfigError: If it is empty, negative or not a pair.
    """
    pair = tuple(span) if isinstance(span, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(is_int, pair)) or not 0 <= pair[0] < pair[1]:
        raise EAHConfigError(
            f"image span {span!r}, but a span is (start, stop) with 0 <= start < stop"
        )
    return pair


def is_int(value: object) -> bool:
    """Return whether a value is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# Environment variables of the drop-in -------------------------------------------------------------

AUTO: Final = "auto"  # image tokens are the embeddings that equal no row of the embedding table
# Image tokens of known prompts: LLaVA-1.5's in its own, OPERA's and transformers' format, Shikra's,
# and MiniGPT-4's.
SPANS: Final = {
    "llava": (35, 611),
    "opera": (34, 610),
    "llava-hf": (5, 581),
    "shikra": (34, 290),
    "minigpt4": (8, 40),
}
DISABLE_VARIABLE: Final = "EAH_DISABLE"
QUIET_VARIABLE: Final = "EAH_QUIET"
LOG_VARIABLE: Final = "EAH_LOG"
# Setting -> variables that set it; the first one wins. The others are the paper's release's names.
VARIABLES: Final = {
    "preset": ("EAH_PRESET",),
    "layers": ("EAH_LAYERS", "LAYER_NUM"),
    "threshold": ("EAH_THRESHOLD", "THRES"),
    "head": ("EAH_HEAD", "HEAD_NUM"),
    "min_density": ("EAH_MIN_DENSITY",),
    "receivers": ("EAH_RECEIVERS",),
    "image_span": ("EAH_IMAGE_SPAN",),
    "disable": (DISABLE_VARIABLE,),
    "quiet": (QUIET_VARIABLE,),
    "log": (LOG_VARIABLE,),
}
OTHER_VARIABLES: Final = ("EAH_CACHE", "EAH_TRITON")  # of other parts of the project
CLOSE: Final = 0.8  # similarity of a misspelt name
READERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "layers": (lambda text: _integers(text, ","), "indices from 0, such as 1 or 1,2"),
    "threshold": (float, "a number, such as 0.002"),
    "head": (lambda text: None if text == "auto" else int(text), "auto, or an index from 0"),
    "min_density": (float, "a share of the image tokens, such as 0.15"),
    "receivers": (lambda text: text if text == "all" else int(text), "all, or a number of heads"),
    "image_span": (
        lambda text: _span(text),
        f"{AUTO}, start:stop such as 34:610, or one of {', '.join(SPANS)}",
    ),
}


@dataclass(frozen=True)
class DropInSettings:
    """Settings of the drop-in.

    Attributes:
        config: Where and how EAH acts; without `image_span`, image tokens are located
            automatically.
        enabled: False leaves every model unchanged.
        layers_named: Whether the environment sets the layers or a preset. If a small model lacks a
            layer, a default layer is left out with a warning; a named one is an error.
        quiet: Whether the lines at the start and at the end are hidden.
        log: File for a line per treated prompt; None for no such file.
    """

    config: EAHConfig
    enabled: bool = True
    layers_named: bool = False
    quiet: bool = False
    log: str | None = None

    def __str__(self) -> str:
        """Return the settings in one line."""
        if not self.enabled:
            return f"off ({DISABLE_VARIABLE})"
        config = self.config
        head = "densest head" if config.head is None else f"head {config.head}"
        tokens = "found by their embeddings"
        if config.image_span is not None:
            tokens = "{}:{} of every prompt".format(*config.image_span)
        details = f"; min_density {config.min_density}" if config.min_density else ""
        details += f"; {config.receivers} receivers" if config.receivers != "all" else ""
        return (
            f"layers {', '.join(map(str, config.layers))}; {head}; threshold {config.threshold} "
            f"({config.threshold_unit}){details}; image tokens {tokens}"
        )


def settings_from_environment(environment: Mapping[str, str]) -> DropInSettings:
    """Read the drop-in's settings from environment variables, see `VARIABLES`.

    Raises:
        EAHConfigError: Naming the variable, its value and what is allowed.
    """
    _refuse_misspelt(environment)
    given = {
        setting: (name, environment[name].strip())
        for setting, names in VARIABLES.items()
        for name in reversed(names)
        if environment.get(name, "").strip()
    }
    preset = given.get("preset", ("", "paper"))[1]
    if preset not in PRESETS:
        raise EAHConfigError(f"EAH_PRESET={preset!r}, but it is one of {', '.join(PRESETS)}")
    values: dict[str, Any] = dict(PRESETS[preset])
    for setting, (name, text) in given.items():
        if setting not in READERS:
            continue
        reader, usage = READERS[setting]
        try:
            values[setting] = reader(text)
            if setting == "threshold":
                values["threshold_unit"] = "attention"
            EAHConfig(**values)
        except ValueError as error:
            raise EAHConfigError(
                f"{name}={text!r} can't be used: {error}; write {usage}"
            ) from error
    return DropInSettings(
        EAHConfig(**values),
        enabled=not _is_on(given, "disable"),
        layers_named="layers" in given or "preset" in given,
        quiet=_is_on(given, "quiet"),
        log=os.path.abspath(given["log"][1]) if "log" in given else None,
    )


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Refuse a misspelt variable of ours, which would otherwise be ignored silently."""
    known = [name for names in VARIABLES.values() for name in names]
    for name in environment:
        if name.startswith("EAH_") and name not in (*known, *OTHER_VARIABLES):
            close = get_close_matches(name, known, 1, CLOSE)
            if close:
                raise EAHConfigError(f"{name} is not a setting; write {close[0]}, or unset it")


def _is_on(given: Mapping[str, tuple[str, str]], setting: str) -> bool:
    """Return whether a switch is set to anything but 0, false, no or off."""
    return given.get(setting, ("", "0"))[1].lower() not in ("0", "false", "no", "off")


def _span(text: str) -> tuple[int, ...] | None:
    """Read a span, by numbers or by name; None for "auto"."""
    name = text.lower().replace("_", "-")
    if name == AUTO:
        return None
    if name not in SPANS and not all(
        part.strip().lstrip("-").isdigit() for part in text.split(":")
    ):
        raise ValueError("it is neither a span nor the name of one")
    return SPANS[name] if name in SPANS else _integers(text, ":")


def _integers(text: str, separator: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(separator))
