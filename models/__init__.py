"""Wrappers of the paper's vision-language models: prompt, preprocessing and generation.

import models

vlm = models.load("llava-1.5", checkpoint="llava-hf/llava-1.5-7b-hf")
print(vlm.generate(image, "Describe this image in detail."))
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from models.base import VLM, Decoding
from models.checkpoints import load_tokenizer, locate, require_type
from models.devices import resolve_device, resolve_dtype
from models.errors import ModelError
from models.prompts import template
from models.settings import ModelSettings, available, model_settings

__all__ = [
    "VLM",
    "Decoding",
    "Description",
    "ModelError",
    "ModelSettings",
    "available",
    "describe",
    "load",
    "model_settings",
]


@dataclass(frozen=True, slots=True)
class Description:
    """What will be loaded: everything that decides a model's answers.

    Attributes:
        model: Name in `configs/`.
        checkpoint: Folder or hub id.
        weights: Hub commit or hash of the folder; another one means other weights.
        protocol: Prompt and preprocessing.
        device: "cpu", "cuda:N" or "auto".
        dtype: "float32", "float16" or "bfloat16".
    """

    model: str
    checkpoint: str
    weights: str
    protocol: str
    device: str
    dtype: str


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> VLM:
    """Load a model with its wrapper.

    Args:
        name: One of `available()`, such as "llava-1.5" or "tiny-llava".
        checkpoint: Folder or hub id; None for the one that `configs/<name>.yaml` names.
        protocol: Whose prompt and preprocessing; None for the config's ("opera").
        device: "cpu", "cuda:N", or "auto" to spread over all GPUs; None for the first GPU, else
            the CPU.
        dtype: "float32", "float16", "bfloat16" or "auto"; None for the config's.
    Returns:
        The wrapped model, ready to generate.
    Raises:
        ModelError: If one of these does not exist or does not fit the others.
    """
    found = describe(name, checkpoint=checkpoint, protocol=protocol, device=device, dtype=dtype)
    wrapper = _wrapper(model_settings(name))
    located = locate(found.checkpoint)  # describe has checked that it fits
    tokenizer = load_tokenizer(located)
    precision = resolve_dtype(found.dtype, found.device)
    model = wrapper.load_model(located, device=found.device, dtype=precision)
    return wrapper(model, tokenizer, protocol=found.protocol)


def describe(
    name: str,
    *,
    checkpoint: str | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Description:
    """Resolve what `load` would load, without loading it; arguments and errors as there."""
    settings = model_settings(name)
    wrapper = _wrapper(settings)
    chosen = protocol or settings.protocol
    try:
        template(wrapper.family, chosen)
    except ValueError as error:
        raise ModelError(str(error)) from error
    place = resolve_device(device)
    precision = resolve_dtype(dtype or settings.dtype, place)
    located = locate(checkpoint or settings.checkpoint)
    require_type(located, wrapper.model_type)
    return Description(
        model=name,
        checkpoint=checkpoint or settings.checkpoint,
        weights=located.identity,
        protocol=chosen,
        device=place,
        dtype=str(precision).removeprefix("torch."),
    )


def _wrapper(settings: ModelSettings) -> type[VLM]:
    module, _, attribute = settings.wrapper.rpartition(".")
    wrapper: type[VLM] = getattr(importlib.import_module(module), attribute)
    return wrapper
