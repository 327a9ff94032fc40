"""From a model's name to the loaded model: its wrapper, its checkpoint, device and precision."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from models.base import VLM
from models.checkpoints import Checkpoint, locate
from models.devices import resolve_device
from models.errors import ModelError
from models.precision import resolve_precision
from models.prompts import template
from models.quantization import check_quantization
from models.settings import PARTS, ModelSettings, model_settings


@dataclass(frozen=True, slots=True)
class Description:
    """What will be loaded: everything that decides a model's answers.

    Attributes:
        model: Name in `configs/`.
        family: What kind of model it is, such as "llava-1.5".
        checkpoint: Folder or hub id, or those of its parts.
        weights: Hub commit or hash of the contents; another one means other weights.
        protocol: Prompt and preprocessing.
        device: "cpu", "cuda:N" or "auto".
        dtype: "mixed", "float32", "float16" or "bfloat16".
        quantization: "8bit", "4bit" or None.
    """

    model: str
    family: str
    checkpoint: str
    weights: str
    protocol: str
    device: str
    dtype: str
    quantization: str | None = None


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    parts: Mapping[str, str] | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
) -> VLM:
    """Load a model with its wrapper.

    Args:
        name: One of `available()`, such as "llava-1.5" or "tiny-llava".
        checkpoint: Folder or hub id, in transformers' format or as the authors published it; None
            for what `configs/<name>.yaml` names.
        parts: Original files by part ("llm", "vision", "qformer", "projector",
            "qformer_tokenizer") instead of the config's.
        protocol: Whose prompt and preprocessing; None for the config's ("opera").
        device: "cpu", "cuda:N", or "auto" to spread over all GPUs; None for the first GPU, else
            the CPU.
        dtype: "float32", "float16", "bfloat16", "mixed" (as the paper's wrapper mixes float16 and
            float32) or "auto" (mixed on a GPU, else float32); None for the config's.
        quantization: "8bit" or "4bit" weights in the language model, by bitsandbytes.
    Returns:
        The wrapped model, ready to generate.
    Raises:
        ModelError: If one of these does not exist or does not fit the others.
    """
    settings = model_settings(name)
    wrapper = wrapper_of(settings)
    chosen = protocol or settings.protocol
    _check_protocol(wrapper, chosen)
    place = resolve_device(device)
    return wrapper.load(
        find_checkpoint(settings, checkpoint, parts),
        protocol=chosen,
        device=place,
        precision=resolve_precision(dtype or settings.dtype, place, wrapper.mixed),
        quantization=check_quantization(quantization, place),
    )


def describe(
    name: str,
    *,
    checkpoint: str | None = None,
    parts: Mapping[str, str] | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
) -> Description:
    """Resolve what `load` would load, without loading it; arguments and errors as there."""
    settings = model_settings(name)
    wrapper = wrapper_of(settings)
    chosen = protocol or settings.protocol
    _check_protocol(wrapper, chosen)
    place = resolve_device(device)
    located = find_checkpoint(settings, checkpoint, parts)
    return Description(
        model=name,
        family=wrapper.family.name,
        checkpoint=located.name,
        weights=located.identity,
        protocol=chosen,
        device=place,
        dtype=resolve_precision(dtype or settings.dtype, place, wrapper.mixed).name,
        quantization=check_quantization(quantization, place),
    )


def find_checkpoint(
    settings: ModelSettings, checkpoint: str | None, parts: Mapping[str, str] | None
) -> Checkpoint:
    """Find the checkpoint that a user's choice and a model's config come to.

    Named parts take the place of the config's checkpoint; a named checkpoint that turns out to
    hold some parts only is completed by the config's parts.

    Raises:
        ModelError: If a part is unknown, missing, or of another model.
    """
    named = dict(parts or {})
    for part in named:
        if part not in PARTS:
            raise ModelError(f"part {part!r} is unknown; a model has {', '.join(PARTS)}")
    known = {part: value for part in PARTS if (value := getattr(settings, part)) is not None}
    whole = checkpoint if named else checkpoint or settings.checkpoint
    return locate(wrapper_of(settings).family, whole, named, known)


def wrapper_of(settings: ModelSettings) -> type[VLM]:
    """Return the wrapper class that a model's config names."""
    module, _, attribute = settings.wrapper.rpartition(".")
    wrapper: type[VLM] = getattr(importlib.import_module(module), attribute)
    return wrapper


def _check_protocol(wrapper: type[VLM], protocol: str) -> None:
    try:
        template(wrapper.family.name, protocol)
    except ValueError as error:
        raise ModelError(str(error)) from error
