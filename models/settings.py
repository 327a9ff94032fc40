"""What `configs/<model>.yaml` says about a model, checked key by key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from eah.errors import nearest
from models.errors import ModelError
from models.yaml_files import parse_yaml

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIGS: Final = ROOT / "configs"
MOST_BYTES: Final = 16 << 20  # of a file of settings; ours have some kilobytes
PARTS: Final = ("llm", "vision", "qformer", "projector", "qformer_tokenizer")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model of the project. Parts are files, folders or hub ids."""

    wrapper: str  # dotted path of the wrapper class
    checkpoint: str | None = None  # hub id or folder (from the checkout) of the model or some parts
    llm: str | None = None  # language model and tokenizer; with the projector in LLaVA and Shikra
    vision: str | None = None  # vision tower: CLIP's folder, or `eva_vit_g.pth`
    qformer: str | None = None  # Q-Former, norm and queries; with the projector in InstructBLIP
    projector: str | None = None  # of MiniGPT-4
    qformer_tokenizer: str | None = None  # BERT's tokenizer for InstructBLIP's Q-Former
    protocol: str = "opera"  # default of prompt and preprocessing
    dtype: str = "auto"  # as `models.load` takes it
    # Preset of EAH, and settings that differ from it.
    eah: dict[str, Any] = field(default_factory=lambda: {"preset": "paper"})
    # Settings of methods that replace those of methods.yaml for this model, by method, and the
    # layers and width of the language model that they are for.
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    methods_for: dict[str, int] = field(default_factory=dict)


def available() -> list[str]:
    """Return the names of the models that `configs/` describes."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if "wrapper" in read_yaml(path))


def model_settings(name: str) -> ModelSettings:
    """Read the settings of a model.

    Raises:
        ModelError: If there is no such model, or its file has an unknown key.
    """
    # The one file: reading all of them, as `available` does, takes a tenth of a second.
    path = next((path for path in CONFIGS.glob("*.yaml") if path.stem == name), None)
    values = {} if path is None else read_yaml(path)
    if path is None or "wrapper" not in values:
        raise ModelError(f"model {name!r} is unknown: {nearest(name, available())}")
    known = [item.name for item in fields(ModelSettings)]
    for key in values:
        if key not in known:
            raise ModelError(f"{path.name} has an unknown key {key!r}: {nearest(key, known)}")
    return ModelSettings(**values)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ModelError: If it is missing, not YAML, or not a mapping of names to values.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ModelError(f"config {path} is not a file; pass a YAML file of settings")
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"config {path} has over {MOST_BYTES} bytes; is it the right file?")
        values = parse_yaml(path.read_bytes())
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"config {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"config {path} is not YAML as settings need it: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"config {path} contains {type(values).__name__}; it must be `key: value`")
    return values
