"""Which models can decode by steps on fixed buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eah.errors import UnsupportedModelError
from eah.find import attention_modules
from models.decoding.attention_replacement import KERNELS, kernel_name

if TYPE_CHECKING:
    from models.base import VLM

QUANTIZED: Final = "its weights are quantized"
ROPE_BY_LENGTH: Final = {"dynamic", "longrope"}


def reason_against(vlm: VLM) -> str | None:
    """Return why a model can't decode by captured steps; None if it can."""
    devices = {parameter.device for parameter in vlm.language_model.parameters()}
    if len(devices) > 1:
        return "the model is spread over several devices"
    if next(iter(devices)).type != "cuda":
        return "that needs a CUDA GPU"
    if getattr(vlm.model, "hf_quantizer", None) is not None:
        return QUANTIZED
    if vlm.prefix_note is not None:
        return vlm.prefix_note
    llm = vlm.precision.parts["llm"]
    if llm.autocast not in (None, llm.linear):
        return f"autocast would cast its {llm.linear} weights at every step; pass another --dtype"
    return reason_against_structure(vlm.language_model)


def reason_against_structure(model: Any) -> str | None:
    """Return why a model can't decode on fixed buffers on any device; None if it can."""
    if getattr(model, "hf_quantizer", None) is not None:
        return QUANTIZED
    if any("_hf_hook" in module.__dict__ for module in model.modules()):
        return "accelerate moves its weights between devices"
    try:
        modules = attention_modules(model).values()
    except UnsupportedModelError as error:
        return str(error)
    kernels = {kernel_name(module) for module in modules}
    if not kernels <= set(KERNELS):
        return f"attn_implementation is {', '.join(sorted(kernels))}, not {' or '.join(KERNELS)}"
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"} or _has_sliding_window(config):
        return "some of its layers see only a window of the prompt"
    kinds = _rope_types(getattr(config, "rope_parameters", None))
    kinds |= _rope_types(getattr(config, "rope_scaling", None))
    if kinds & ROPE_BY_LENGTH:
        return "its position encoding changes with the length of the text"
    return None


def _rope_types(settings: Any) -> set[str]:
    """Return the types that a config's RoPE settings name, including those of each layer type."""
    if not isinstance(settings, dict):
        return set()
    own = {str(settings[name]) for name in ("rope_type", "type") if name in settings}
    return own.union(*map(_rope_types, settings.values()))


def _has_sliding_window(config: Any) -> bool:
    """Return whether a config without layer types uses a sliding window."""
    window = getattr(config, "sliding_window", None)
    return window is not None and bool(getattr(config, "use_sliding_window", True))
