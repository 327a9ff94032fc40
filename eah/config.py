"""Settings of EAH: which layers, how sinks are counted, which head wins."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from eah.errors import EAHConfigError, nearest
from eah.modeling_llama_eah import PRESETS, SinkRule, checked_layers, checked_span


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
        try:
            SinkRule(**{field.name: getattr(self, field.name) for field in fields(SinkRule)})
            object.__setattr__(self, "layers", checked_layers(self.layers))
        except ValueError as error:
            raise EAHConfigError(str(error)) from error
        if self.image_span is not None:
            object.__setattr__(self, "image_span", span_of(self.image_span))
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
    def is_per_prompt(self) -> bool:
        """Whether what happens to a prompt depends on that prompt alone, wherever it stands."""
        return self.batch_rows == "all" and self.image_span is None

    @property
    def rule(self) -> SinkRule:
        """The part of the settings that the arithmetic needs."""
        return SinkRule(**{field.name: getattr(self, field.name) for field in fields(SinkRule)})


def span_of(span: tuple[int, int]) -> tuple[int, int]:
    """Return a span [start, stop) of image tokens as a pair of ints.

    Raises:
        EAHConfigError: If it is empty, negative or not a pair.
    """
    try:
        return checked_span(span)
    except ValueError as error:
        raise EAHConfigError(str(error)) from error
