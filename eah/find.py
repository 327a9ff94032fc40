"""Find what EAH changes in a model: its decoder's attention modules, by type and layer index.

Never by a chain of attributes: the path to the decoder differs between models and between versions
of transformers.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn
from transformers import PretrainedConfig

from eah.attention import eager_function
from eah.config import EAHConfig
from eah.errors import EAHConfigError, UnsupportedModelError

KERNELS: Final = ("eager", "sdpa", "flash_attention_*", "flex_attention")


def attention_modules(model: nn.Module) -> dict[int, Any]:
    """Return the language model's self-attention modules by layer index.

    Raises:
        UnsupportedModelError: If there are none, or two of the same layer.
    """
    if not isinstance(getattr(model, "config", None), PretrainedConfig):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not a transformers model; "
            "pass a loaded model, such as vlm.model"
        )
    text_config = type(model.config.get_text_config(decoder=True))  # type: ignore[union-attr, operator]  # checked above
    found: dict[int, Any] = {}
    for module in model.modules():
        index = module.__dict__.get("layer_idx")
        is_attention = type(module).__name__.endswith("Attention")
        has_text_config = type(module.__dict__.get("config")) is text_config
        if is_attention and has_text_config and isinstance(index, int):
            if index in found:
                raise UnsupportedModelError(
                    f"{type(model).__name__} has two attention modules in layer {index}; "
                    "EAH needs a decoder-only language model"
                )
            found[index] = module
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no decoder self-attention that EAH knows; "
            "LLaMA-like decoders are supported"
        )
    return found


def target_modules(model: nn.Module, config: EAHConfig) -> list[Any]:
    """Return the attention modules of the target layers, after checking that they can be patched.

    Raises:
        EAHConfigError: If a layer or the head does not exist.
        UnsupportedModelError: If the kernel is not one that EAH works with.
    """
    found = attention_modules(model)
    if any(layer not in found for layer in config.layers):
        raise EAHConfigError(
            f"layers={config.layers} but {type(model).__name__} has {len(found)} decoder layers "
            f"(0..{max(found)})"
        )
    targets = [found[layer] for layer in config.layers]
    for module in targets:
        eager_function(type(module))
        heads = module.config.num_attention_heads
        if config.head is not None and config.head >= heads:
            raise EAHConfigError(
                f"head={config.head} but {type(model).__name__} has {heads} heads (0..{heads - 1})"
            )
        kernel = str(module.config._attn_implementation)
        known = kernel in ("eager", "sdpa", "flex_attention") or "flash" in kernel
        if not known or kernel.startswith("paged|"):
            raise UnsupportedModelError(
                f"attn_implementation={kernel!r} in layer {module.layer_idx}; "
                f"EAH works with {', '.join(KERNELS)}: load the model with one of these"
            )
    return targets


def image_token_id(model: Any) -> int | None:
    """Return the id of the model's image placeholder; families call it by one of two names."""
    settings = model.config.to_dict()
    for name in ("image_token_id", "image_token_index"):
        if isinstance(settings.get(name), int):
            return int(settings[name])
    return None
