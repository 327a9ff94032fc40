"""The device that a model runs on, and the precision of each of its parts.

The reference wrappers mix precisions, each in its own way: float32, float16, either under autocast.
`--dtype mixed` does the same and is the default on a GPU; a plain dtype applies to all parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from models.errors import ModelError

Quantization = Literal["8bit", "4bit"]
AUTO: Final = "auto"
MIXED: Final = "mixed"
PART_NAMES: Final = ("vision", "qformer", "projector", "llm")
DTYPES: Final = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
# The output layer is not quantized, as in transformers' own quantized models.
OUTPUT_LAYERS: Final = ("lm_head", "language_model.lm_head")


@dataclass(frozen=True, slots=True)
class Parts:
    """Maps parameters to parts of a model by the start of their names; "llm" by default."""

    prefixes: Mapping[str, str]

    def of(self, parameter: str) -> str:
        """Return "vision", "qformer", "projector" or "llm"."""
        found = (part for start, part in self.prefixes.items() if parameter.startswith(start))
        return next(found, "llm")

    def modules(self, *parts: str) -> list[str]:
        """Return the names of the modules and parameters of some parts."""
        return [name.rstrip(".") for name, part in self.prefixes.items() if part in parts]


@dataclass(frozen=True, slots=True)
class PartPrecision:
    """The precision of one part."""

    linear: torch.dtype  # of linear layers' parameters
    other: torch.dtype  # of norms, embeddings, convolutions
    autocast: torch.dtype | None = None  # dtype of matrix products under autocast; None without

    def context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context that the part computes in."""
        enabled = self.autocast is not None
        return torch.autocast(device.type, self.autocast) if enabled else nullcontext()


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of every part of a model; a model need not have all of them."""

    name: str
    parts: Mapping[str, PartPrecision]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to load a model in, the lowest of all; the parts in `float32` differ."""
        dtypes = {dtype for part in self.parts.values() for dtype in (part.linear, part.other)}
        return min(dtypes, key=lambda dtype: dtype.itemsize)

    @property
    def float32(self) -> tuple[str, ...]:
        """The parts with parameters that are more precise than `dtype`."""
        return tuple(
            name for name, part in self.parts.items() if {part.linear, part.other} != {self.dtype}
        )

    def cast(self, model: nn.Module, parts: Parts) -> None:
        """Cast every parameter to its dtype, in place, except quantized (integer) weights."""
        for name, parameter in model.named_parameters():
            part = self.parts[parts.of(name)]
            module = model.get_submodule(name.rpartition(".")[0])
            dtype = part.linear if isinstance(module, nn.Linear) else part.other
            if parameter.is_floating_point() and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)


def uniform_precision(dtype: torch.dtype) -> Precision:
    """Return the same precision for every part."""
    name = str(dtype).removeprefix("torch.")
    return Precision(name, dict.fromkeys(PART_NAMES, PartPrecision(dtype, dtype)))


HALF: Final = PartPrecision(torch.float16, torch.float16)
FULL: Final = PartPrecision(torch.float32, torch.float32)
FULL_AUTOCAST: Final = PartPrecision(torch.float32, torch.float32, torch.float16)
HALF_AUTOCAST: Final = PartPrecision(torch.float16, torch.float16, torch.float16)
# EVA's linear layers are in float16, its norms and embeddings in float32. It runs under autocast,
# which casts the convolution's weights, and its residual stream is float32.
EVA: Final = PartPrecision(torch.float16, torch.float32, torch.float16)


def resolve_precision(name: str, device: str, mixed: Precision) -> Precision:
    """Return a precision by its name in `models.load`; "mixed" is the wrapper's `mixed`.

    Raises:
        ModelError: If the name is unknown.
    """
    if name == AUTO:
        name = "float32" if device == "cpu" else MIXED
    if name == MIXED:
        return mixed
    if name not in DTYPES:
        raise ModelError(
            f"dtype {name!r} is unknown; use auto, mixed (float16 and float32 as in the paper's "
            f"wrapper), {', '.join(DTYPES)}"
        )
    return uniform_precision(DTYPES[name])


def check_quantization(name: str | None, device: str) -> Quantization | None:
    """Return a quantization by name.

    Raises:
        ModelError: If the name is unknown, or the quantization is not available here.
    """
    if name is None:
        return None
    if name not in ("8bit", "4bit"):
        raise ModelError(f"quantization {name!r} is unknown; use 8bit or 4bit")
    if device == AUTO:
        raise ModelError(
            f"quantization {name} with device auto: a quantized 7B model fits on one GPU; "
            "use --gpu-id N, or leave --quantization out"
        )
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {name} needs bitsandbytes, which is not installed; "
            'install it with: pip install -e ".[quantization]"'
        )
    return "8bit" if name == "8bit" else "4bit"


def bits_and_bytes(
    kind: Quantization, dtype: torch.dtype | str, unquantized: Sequence[str]
) -> BitsAndBytesConfig:
    """Return transformers' quantization config: LLM.int8(), or NF4 with double quantization.

    Args:
        kind: "8bit" or "4bit".
        dtype: Dtype that 4-bit layers compute in.
        unquantized: Modules that keep their precision; if empty, transformers chooses.
    """
    skipped = [*unquantized, *OUTPUT_LAYERS] if unquantized else None
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else None,
        llm_int8_skip_modules=skipped,
    )


def resolve_device(device: str | None) -> str:
    """Return "cpu", "cuda:N", "mps" or "auto" (all GPUs); by default the first GPU, if any.

    Raises:
        ModelError: If this machine does not have the device.
    """
    if device is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == AUTO:
        return AUTO
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown; use cpu, cuda:N or auto") from error
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device {device!r} is not supported; use cpu, cuda:N or auto")
    if wanted.type != "cuda":
        return str(wanted)
    count, index = torch.cuda.device_count(), wanted.index or 0
    if index >= count:
        have = f"{count} (0..{count - 1})" if count else "none"
        raise ModelError(
            f"GPU {index} does not exist; this machine has {have}: "
            "use --gpu-id with one of them, or --gpu-id -1 for the CPU"
        )
    return f"cuda:{index}"
