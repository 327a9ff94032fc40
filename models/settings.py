"""What `configs/<model>.yaml` says about a model, checked key by key."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import yaml

from eah.errors import nearest
from models.errors import ModelError

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIGS: Final = ROOT / "configs"
PARTS: Final = ("llm", "vision", "qformer", "projector", "qformer_tokenizer")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model of the project.

    Attributes:
        wrapper: Dotted path of the wrapper class.
        checkpoint: Hub id or folder (relative to the checkout) that holds the model, or some of its
            parts; None where the parts below are all there is.
        llm: Folder or hub id: language model and tokenizer, and the projector of LLaVA-1.5 and
            Shikra.
        vision: Vision tower: CLIP's folder or hub id, or `eva_vit_g.pth`.
        qformer: File of Q-Former, norm and queries, and of InstructBLIP's projector.
        projector: File of MiniGPT-4's projector.
        qformer_tokenizer: Folder or hub id: BERT's tokenizer for InstructBLIP's Q-Former.
        protocol: Default protocol of prompt and preprocessing.
        dtype: As `models.load` takes it.
        eah: Preset of EAH, and settings that differ from it.
    """

    wrapper: str
    checkpoint: str | None = None
    llm: str | None = None
    vision: str | None = None
    qformer: str | None = None
    projector: str | None = None
    qformer_tokenizer: str | None = None
    protocol: str = "opera"
    dtype: str = "auto"
    eah: dict[str, Any] = field(default_factory=lambda: {"preset": "paper"})


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
        ModelError: If it is missing, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_bytes())  # bytes: UTF-8 or UTF-16, marked or not
    except OSError as error:
        raise ModelError(f"config {path} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ModelError(f"config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ModelError(f"config {path} holds {type(values).__name__}; it must be `key: value`")
    return values
