"""Language models in 8 or 4 bits per weight, with bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, Literal

from torch import nn

from models.devices import AUTO
from models.errors import ModelError

Quantization = Literal["8bit", "4bit"]
KINDS: Final = ("8bit", "4bit")
# The output layer keeps its precision, as in transformers' own quantised models.
KEPT: Final = ("lm_head",)


def check_quantization(name: str | None, device: str) -> Quantization | None:
    """Return a quantisation by name.

    Raises:
        ModelError: If there is none of this name, or it can't be had here.
    """
    if name is None:
        return None
    if name not in KINDS:
        raise ModelError(f"quantization {name!r} is unknown; use {' or '.join(KINDS)}")
    if device == AUTO:
        raise ModelError(
            f"quantization {name} with device auto: a quantised 7B model fits one GPU; "
            "use --gpu-id N, or leave --quantization out"
        )
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {name} needs bitsandbytes, which is not installed; "
            'install it with: pip install -e ".[quantization]"'
        )
    return "8bit" if name == "8bit" else "4bit"


def quantize(
    model: nn.Module, kind: Quantization, device: str, *, is_target: Callable[[str], bool]
) -> None:
    """Replace linear layers by quantised ones, layer by layer, and move the model to a device.

    Args:
        model: A loaded model on the CPU; changed in place.
        kind: LLM.int8() for "8bit"; NF4 with double quantisation for "4bit".
        device: Where the model goes; a layer is quantised when it is moved there.
        is_target: Tells by name which linear layers are replaced.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and is_target(name) and name.split(".")[-1] not in KEPT:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, _quantized(module, kind).to(device))
    model.to(device)


def _quantized(linear: nn.Linear, kind: Quantization) -> nn.Module:
    import bitsandbytes  # an optional extra, slow to import

    layers: Any = bitsandbytes.nn
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    made: nn.Module
    if kind == "8bit":
        made = layers.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
        made.weight = layers.Int8Params(linear.weight.data, requires_grad=False)
    else:
        made = layers.Linear4bit(
            *sizes, compute_dtype=linear.weight.dtype, compress_statistics=True, quant_type="nf4"
        )
        made.weight = layers.Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
    made.bias = linear.bias
    return made
