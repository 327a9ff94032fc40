"""Find the attention modules of a model's decoder, by type and layer index.

Not by a chain of attributes: the path to the decoder differs between models and between versions of
transformers. Attention that EAH can't share correctly is refused here, before the model runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

import torch
from torch import nn
from transformers import PretrainedConfig

from eah.errors import EAHConfigError, UnsupportedModelError
from eah.kernels import eager_function, own_config, run_kernel
from eah.settings import EAHConfig

KERNELS: Final = ("eager", "sdpa", "flash_attention_*", "flex_attention")
ALLOWED: Final = (
    "pass a loaded transformers model, or an object that has one as its attribute `model`, such as "
    "a wrapper of `models`"
)
# Placeholder tokens that families name in their configs, by kind.
PLACEHOLDERS: Final = {
    "image": ("image_token_id", "image_token_index"),
    "video": ("video_token_id", "video_token_index"),
}
# Code that uses the kernel's name to decide what it passes to the kernel, such as sparse masks. EAH
# replaces that name with its own, so such a module would take a different branch. Two harmless
# tests are excluded: transformers 4 looks up the kernel after `!= "eager"`, and Qwen2-VL's layers
# warn after `!= "flash_attention_2"`.
NAME_TEST: Final = re.compile(
    r"_attn_implementation\s*(not\s+in|in|==|!=)\s"
    r"(?!\"\w+\":\s+(attention_interface|logger\.warning_once)\b)"
)
# Arguments that change a module's scores, and the attribute that is passed, if it is one.
SCORE_ARGUMENT: Final = re.compile(
    r"\b(softcap|s_aux|sinks|position_bias|indices|block_indices)=(self((?:\.\w+)+))?"
)


class Wrapper(Protocol):
    """An object that can be passed instead of its model: it has an attribute `model`.

    It is not an `nn.Module` itself. Examples: wrappers of `models`, and transformers' pipelines.
    """

    @property
    def model(self) -> nn.Module:
        """The transformers model."""


Model: TypeAlias = nn.Module | Wrapper
"""What the public functions take: a transformers model, or a wrapper that has one."""


def transformers_model(model: Model) -> nn.Module:
    """Return the transformers model of a wrapper, or the model itself.

    Raises:
        UnsupportedModelError: If it is neither.
    """
    found = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not isinstance(found, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise UnsupportedModelError(f"{what} is not a transformers model and has none; {ALLOWED}")
    if not isinstance(getattr(found, "config", None), PretrainedConfig):
        what = type(found).__name__ if found is model else f"{type(model).__name__}.model"
        kind = "" if found is model else f" (a {type(found).__name__})"
        raise UnsupportedModelError(f"{what}{kind} is not a transformers model; {ALLOWED}")
    return found


def attention_modules(model: nn.Module) -> dict[int, Any]:
    """Return the language model's self-attention modules by layer index.

    Raises:
        UnsupportedModelError: If there are none, two of the same layer, or an encoder as well.
    """
    config: Any = transformers_model(model).config
    name = type(model).__name__
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder or text.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder: its decoder attends to the image through an encoder, "
            "so there are no image tokens to count in it; EAH needs a decoder-only language model"
        )
    found: dict[int, Any] = {}
    for module in model.modules():
        index = module.__dict__.get("layer_idx")
        if not type(module).__name__.endswith("Attention") or not isinstance(index, int):
            continue
        if type(module.__dict__.get("config")) is not type(text):
            continue
        if "Cross" in type(module).__name__:
            raise UnsupportedModelError(
                f"{name} shows the image to its decoder by cross-attention (layer {index}), so "
                "there are no image tokens to count in the prompt; EAH needs image tokens in the "
                "prompt, as LLaVA has them"
            )
        if index in found:
            raise UnsupportedModelError(
                f"{name} has two attention modules in layer {index}; EAH needs a decoder-only "
                "language model"
            )
        found[index] = module
    if not found:
        raise UnsupportedModelError(
            f"{name} has no decoder self-attention that EAH knows; LLaMA-like decoders are "
            "supported"
        )
    return found


def patchable_layers(model: nn.Module) -> tuple[dict[int, Any], dict[int, str]]:
    """Return the attention modules that can be patched, and why others can't, by layer."""
    modules, reasons = attention_modules(model), {}
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    for layer, module in modules.items():
        reason = _reason_against(module, parents.get(id(module), module))
        if reason is not None:
            reasons[layer] = reason
    return {layer: m for layer, m in modules.items() if layer not in reasons}, reasons


def target_modules(model: nn.Module, layers: Iterable[int]) -> dict[int, Any]:
    """Return the attention modules of given layers, after checking that they can be patched.

    Raises:
        EAHConfigError: If a layer does not exist, or has no attention.
        UnsupportedModelError: If EAH can't patch a layer's attention.
    """
    layers = tuple(layers)
    usable, reasons = patchable_layers(model)
    name = type(model).__name__
    for layer in layers:
        if layer in reasons:
            others = f"; layers that can be: {listed_layers(usable)}" if usable else ""
            raise UnsupportedModelError(f"{name}, layer {layer}: {reasons[layer]}{others}")
        if layer not in usable:
            raise EAHConfigError(
                f"layers={layers} but {name} has no layer {layer} with softmax attention; layers "
                f"that can be patched: {listed_layers(usable)}"
            )
    return {layer: usable[layer] for layer in layers}


def check_heads(modules: dict[int, Any], config: EAHConfig) -> None:
    """Refuse heads that a layer does not have.

    Raises:
        EAHConfigError: Naming the setting and the heads there are.
    """
    for layer, module in modules.items():
        heads = num_heads(module)
        if config.head is not None and config.head >= heads:
            raise EAHConfigError(
                f"head={config.head} but layer {layer} has {heads} heads (0..{heads - 1})"
            )
        if config.receivers != "all" and int(config.receivers) > heads:
            raise EAHConfigError(
                f"receivers={config.receivers} but layer {layer} has {heads} heads; name at most "
                "as many, or 'all'"
            )


def num_heads(module: Any) -> int:
    """Return the number of query heads of an attention module."""
    return int(module.config.num_attention_heads)


def placeholder_ids(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the ids of the model's placeholder tokens, by kind ("image", "video").

    They are in the model's config, or in one of its sub-configs (Phi-4-multimodal).
    """
    parts = [getattr(model.config, name, None) for name in model.config.sub_configs]
    for config in (model.config, *parts):
        found = {
            kind: tuple(
                dict.fromkeys(
                    token for name in names if isinstance(token := getattr(config, name, None), int)
                )
            )
            for kind, names in PLACEHOLDERS.items()
        }
        if any(found.values()):
            return found
    return dict.fromkeys(PLACEHOLDERS, ())


def listed_layers(layers: Iterable[int]) -> str:
    """Return layer indices in a short form, such as 0..31 or 3, 7, 11."""
    found = sorted(layers)
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]}..{found[-1]}"
    return ", ".join(map(str, found)) or "none"


def _reason_against(module: Any, parent: nn.Module) -> str | None:
    """Return why a layer's attention can't be patched; None if it can."""
    kernel = str(own_config(module)._attn_implementation)
    known = kernel in ("eager", "sdpa", "flex_attention") or "flash" in kernel
    if not known or kernel.startswith("paged|"):
        return (
            f"attn_implementation={kernel!r}; EAH works with {', '.join(KERNELS)}: load the model "
            "with one of these"
        )
    try:
        eager_function(type(module))
    except UnsupportedModelError as error:
        return str(error)
    for part in {type(inner): inner for inner in (parent, *module.modules())}.values():
        if NAME_TEST.search(source_of(type(part))):  # type: ignore[arg-type]  # classes have a hash
            return (
                f"{type(part).__name__} decides by the name of the attention kernel what the "
                "kernel sees (sparse attention), which EAH can't share; choose another model"
            )
    for name, expression, path in SCORE_ARGUMENT.findall(source_of(type(module))):  # type: ignore[arg-type]
        if not expression or _attribute(module, path) is not None:
            return (
                f"{type(module).__name__} passes {name!r} to its attention kernel, but EAH shares "
                "plain softmax attention only"
            )
    if kernel == "eager" and not _is_plain_softmax(module):
        return (
            f"the eager attention of {type(module).__name__} is not softmax(Q K^T * scale + mask) "
            "V, which is what EAH counts and shares"
        )
    return None


@cache
def source_of(cls: Any) -> str:
    """Return the source of a class; "" where there is none."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""


def _attribute(module: Any, path: str) -> Any:
    """Return the attribute at a path such as ".config.softcap"; None if there is none."""
    for name in path.removeprefix(".").split("."):
        module = getattr(module, name, None)
    return module


@torch.no_grad()
def _is_plain_softmax(module: Any) -> bool:
    """Compare a module's eager attention with plain softmax attention on a small example."""
    groups = int(getattr(module, "num_key_value_groups", 1))
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2 * groups, 3, 4, generator=generator)
    key, value = torch.randn(2, 1, 2, 3, 4, generator=generator)
    mask = torch.full((3, 3), -1e4).triu(1)[None, None]
    try:
        output, _ = run_kernel(
            module, own_config(module), query, key, value, mask, scaling=0.5, dropout=0.0
        )
    except (RuntimeError, TypeError, AttributeError):
        return False
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    weights = torch.softmax(query @ key.mT * 0.5 + mask, -1)
    plain = (weights @ value).transpose(1, 2)
    return output.shape == plain.shape and torch.allclose(output, plain, atol=1e-4)
