"""What an evaluation is asked to do: defaults < YAML < flags, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import eah
from eah.errors import EAHConfigError, nearest
from eval.errors import EvaluationError
from eval.run.arms import DEFAULT_ARMS, OPERA_ARMS, OPERA_FLAGS, method_settings, parse_arms
from models.settings import PARTS, ModelSettings


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings that every evaluation command has.

    Attributes:
        model: Name of a model in `configs/`.
        checkpoint: Folder or hub id instead of the config's.
        llm, vision, qformer, projector, qformer_tokenizer: Original files by part, instead of the
            config's.
        protocol: Prompt, preprocessing and answer length; None for the config's.
        method: Arms of the run, in the order of the table; None for baseline and EAH, or for
            baseline and OPERA on EAH where one of OPERA's settings is given.
        scale_factor, threshold, num_attn_candidates, penalty_weights: OPERA's settings; None for
            the published ones.
        method_settings: Settings of decoding methods, as "vcd.alpha=0.5".
        data_path: Folder of the pictures.
        device: "cpu", "cuda:N", "auto" (all GPUs); None for the first GPU, else the CPU.
        dtype: Precision; None for the config's.
        quantization: "8bit" or "4bit" weights in the language model; None for neither.
        beam: Number of beams; 1 is greedy.
        sample: Nucleus sampling (top-p 0.9, temperature 1).
        max_new_tokens: Length of an answer; None for the protocol's.
        batch_size: Prompts that are generated together; None for as many as fit into memory.
        prefix_reuse: Whether questions about the same picture share its prefix.
        num_workers: Processes that read and resize pictures ahead; None for 4 beside a GPU, and
            none beside a CPU, which they would take time from.
        limit: Use only the first so many questions of each file, or pictures to caption.
        seed: Of sampling, of choosing pictures and of building question files.
        output_dir: Folder that run folders are made in.
        preset: EAH's preset; None for the config's.
        layers: EAH's decoder layers, counted from 0.
        head: EAH's head; None for the densest one.
        sink_threshold: EAH's threshold on mean attention.
        min_density: Least share of sinks among the image tokens that EAH's densest head needs.
        receivers: Number of heads that get its map; None for all.
    """

    model: str = "llava-1.5"
    checkpoint: str | None = None
    llm: str | None = None
    vision: str | None = None
    qformer: str | None = None
    projector: str | None = None
    qformer_tokenizer: str | None = None
    protocol: str | None = None
    method: tuple[str, ...] | None = None
    scale_factor: float | None = None
    threshold: int | None = None
    num_attn_candidates: int | None = None
    penalty_weights: float | None = None
    method_settings: tuple[str, ...] = ()
    data_path: Path | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    beam: int = 1
    sample: bool = False
    max_new_tokens: int | None = None
    batch_size: int | None = 8
    prefix_reuse: bool = True
    num_workers: int | None = None
    limit: int | None = None
    seed: int = 42
    output_dir: Path = Path("runs")
    preset: str | None = None
    layers: tuple[int, ...] | None = None
    head: int | None = None
    sink_threshold: float | None = None
    min_density: float | None = None
    receivers: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            EvaluationError: Naming the setting, its value and what is allowed.
        """
        self.arms()
        for name in ("beam", "batch_size", "max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"{name}={value}, but at least 1 is needed")
        if self.num_workers is not None and self.num_workers < 0:
            raise EvaluationError(f"num_workers={self.num_workers}, but 0 is the least (none)")

    def opera_settings(self) -> dict[str, Any]:
        """Return the settings of OPERA that were given by its own flags."""
        given = {name: getattr(self, name) for name in OPERA_FLAGS}
        return {name: value for name, value in given.items() if value is not None}

    def arms(self) -> tuple[str, ...]:
        """Return the arms of the run, by the names that they are recorded under.

        Raises:
            EvaluationError: If one is unknown, or two are the same.
        """
        if self.method is not None:
            return parse_arms(self.method)
        return OPERA_ARMS if self.opera_settings() else DEFAULT_ARMS

    def decoding_methods(self) -> dict[str, Any]:
        """Return the decoding methods of the arms by name.

        Raises:
            EvaluationError: If a setting is not allowed, or of a method that no arm has.
        """
        return method_settings(self.arms(), self.opera_settings(), self.method_settings)

    def model_arguments(self) -> dict[str, Any]:
        """Return what `models.load` and `models.describe` take, besides the model's name."""
        parts = {part: value for part in PARTS if (value := getattr(self, part)) is not None}
        names = ("checkpoint", "protocol", "device", "dtype", "quantization")
        return {"parts": parts, **{name: getattr(self, name) for name in names}}

    def pictures_folder(self) -> Path:
        """Return the folder of the pictures.

        Raises:
            EvaluationError: If none is given, or it is not a folder.
        """
        if self.data_path is None:
            raise EvaluationError("no pictures: pass --data-path, such as /data/COCO/val2014")
        if not self.data_path.is_dir():
            raise EvaluationError(
                f"--data-path {self.data_path} is not a folder; pass the pictures' folder"
            )
        return self.data_path

    def eah_config(self, settings: ModelSettings) -> eah.EAHConfig:
        """Return EAH's settings: the model's config, changed by flags.

        Raises:
            EvaluationError: If a value is not allowed.
        """
        values = dict(settings.eah)
        if self.preset is not None:
            values = {"preset": self.preset}
        for name in ("layers", "head", "min_density", "receivers"):
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        if self.sink_threshold is not None:
            # The paper's flag is an attention weight, whatever unit the preset counts in.
            values |= {"threshold": self.sink_threshold, "threshold_unit": "attention"}
        try:
            return eah.EAHConfig.preset(values.pop("preset", "paper"), **values)
        except EAHConfigError as error:
            raise EvaluationError(f"EAH settings: {error}") from error


def merge(defaults: RunSettings, values: Mapping[str, Any], source: str) -> RunSettings:
    """Return settings with some values replaced.

    Args:
        defaults: Settings of the lower layer.
        values: Setting names and values.
        source: Where the values are from, for error messages.
    Raises:
        EvaluationError: If a name is unknown, or a value is not of the setting's kind.
    """
    known = {field.name: field for field in fields(defaults)}
    changes = {}
    for name, value in values.items():
        name = name.replace("-", "_")
        if name not in known:
            raise EvaluationError(f"{source}: setting {name!r} is unknown: {nearest(name, known)}")
        changes[name] = _converted(name, str(known[name].type), value, source)
    return replace(defaults, **changes)


def _converted(name: str, kind: str, value: Any, source: str) -> Any:
    """Convert a YAML value to a setting's type."""
    optional = kind.endswith("| None")
    kind = kind.removesuffix("| None").strip()
    if optional and (value is None or (value == "auto" and kind == "int")):
        return None
    if kind.startswith("tuple"):
        items = value if isinstance(value, (list, tuple)) else [value]
        item_kind = kind.removeprefix("tuple[").split(",")[0]
        return tuple(_converted(name, item_kind, item, source) for item in items)
    if kind == "Path" and isinstance(value, (str, Path)):
        return Path(value).expanduser()
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    types = {"int": int, "float": float, "str": str, "bool": bool}
    if kind not in types or type(value) is not types[kind]:
        raise EvaluationError(f"{source}: {name} is {value!r}, but it must be of type {kind}")
    return value
