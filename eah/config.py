"""Settings of EAH: which layers, how sinks are counted, which head wins."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from eah.errors import EAHConfigError, nearest
from eah.modeling_llama_eah import PRESETS, SinkRule


@dataclass(frozen=True, slots=True)
class EAHConfig:
    """Where and how EAH acts; the defaults are the preset "paper".

    Attributes:
        layers: Decoder layers, counted from 0.
        threshold: An image column whose mean attention is greater is a vision sink.
        threshold_unit: "attention" (a weight in (0, 1)) or "uniform" (a multiple of the column's
            mean under uniform attention).
        head: Head to give to the others whatever the counts, or None for the densest one.
        min_density: Smallest share of sinks among the image tokens, the paper's gamma, in [0, 1].
        image_span: Fixed image columns [start, stop) of every prompt; None finds the image tokens
            of each prompt.
        column_divisor: "visible-rows", or "released" as the authors' file divides.
        tie_break: "lowest-index" or "image-attention", between heads of equal count.
        head_zero: "may-win", or "ignored" as in the authors' file.
        batch_rows: "all", or "first" as in the authors' file.
        rounding: "none", or "query-dtype" as in the authors' file.
    """

    layers: tuple[int, ...] = PRESETS["paper"]["layers"]
    threshold: float = PRESETS["paper"]["threshold"]
    threshold_unit: Literal["attention", "uniform"] = "attention"
    head: int | None = None
    min_density: float = 0.0
    image_span: tuple[int, int] | None = None
    column_divisor: Literal["visible-rows", "released"] = "visible-rows"
    tie_break: Literal["lowest-index", "image-attention"] = "lowest-index"
    head_zero: Literal["may-win", "ignored"] = "may-win"
    batch_rows: Literal["all", "first"] = "all"
    rounding: Literal["none", "query-dtype"] = "none"

    def __post_init__(self) -> None:
        """Check every value once.

        Raises:
            EAHConfigError: Naming the setting, its value and what is allowed.
        """
        self._check_choices()
        self._check_layers()
        self._check_threshold()
        if not _is_number(self.min_density) or not 0.0 <= self.min_density <= 1.0:
            raise EAHConfigError(f"min_density={self.min_density!r}, but it is a share in [0, 1]")
        if self.head is not None and (not _is_int(self.head) or self.head < 0):
            raise EAHConfigError(
                f"head={self.head!r}, but a head is an index from 0, or None for the densest one"
            )
        if self.image_span is not None:
            object.__setattr__(self, "image_span", checked_span(self.image_span))
        elif self.column_divisor == "released":
            raise EAHConfigError(
                "column_divisor='released' counts from the ends of a fixed span: "
                "set image_span=(start, stop) too, (36, 611) in the authors' file"
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> EAHConfig:
        """Return a named preset, with some settings changed.

        Args:
            name: "paper", "released-code" or "scale-free".
            changes: Settings that differ from the preset.
        Raises:
            EAHConfigError: If the preset or a setting is unknown, or a value not allowed.
        """
        if name not in PRESETS:
            raise EAHConfigError(f"preset {name!r} is unknown: {nearest(name, PRESETS)}")
        known = [field.name for field in fields(cls)]
        for setting in changes:
            if setting not in known:
                raise EAHConfigError(f"setting {setting!r} is unknown: {nearest(setting, known)}")
        return cls(**{**PRESETS[name], **changes})

    @property
    def rule(self) -> SinkRule:
        """The part of the settings that the arithmetic needs."""
        return SinkRule(**{field.name: getattr(self, field.name) for field in fields(SinkRule)})

    def _check_choices(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            allowed = get_args(hint)
            if get_origin(hint) is Literal and getattr(self, name) not in allowed:
                raise EAHConfigError(f"{name}={getattr(self, name)!r}, but it is one of {allowed}")

    def _check_layers(self) -> None:
        layers = tuple(self.layers) if isinstance(self.layers, (tuple, list)) else ()
        if not layers or not all(_is_int(layer) and layer >= 0 for layer in layers):
            raise EAHConfigError(
                f"layers={self.layers!r}, but layers is a tuple of indices from 0, such as (1,)"
            )
        if len(set(layers)) < len(layers):
            raise EAHConfigError(f"layers={layers} names a layer twice; name each once")
        object.__setattr__(self, "layers", tuple(sorted(layers)))

    def _check_threshold(self) -> None:
        if not _is_number(self.threshold):
            raise EAHConfigError(f"threshold={self.threshold!r}, but a finite number is needed")
        if self.threshold_unit == "attention" and not 0.0 < self.threshold < 1.0:
            raise EAHConfigError(
                f"threshold={self.threshold}, but a mean attention weight lies in (0, 1), "
                "exclusive; the paper uses 0.002"
            )
        if self.threshold_unit == "uniform" and not self.threshold > 0.0:
            raise EAHConfigError(
                f"threshold={self.threshold}, but a multiple of uniform attention is above 0; "
                "the preset scale-free uses 1.25"
            )


def checked_span(span: tuple[int, int]) -> tuple[int, int]:
    """Return a span [start, stop) of image tokens as a pair of ints.

    Raises:
        EAHConfigError: If it is empty, negative or not a pair.
    """
    pair = tuple(span) if isinstance(span, (tuple, list)) else ()
    if len(pair) != 2 or not all(_is_int(end) for end in pair) or not 0 <= pair[0] < pair[1]:
        raise EAHConfigError(
            f"image span {span!r}, but a span is (start, stop) with 0 <= start < stop"
        )
    return pair


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
