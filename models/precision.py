"""On which device a model runs, and in which precision each of its parts computes.

The reference wrappers mix precisions, each in its own way: float32, float16, either under autocast.
`--dtype mixed` does the same, the default on a GPU; a plain dtype is the same everywhere.
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
# The output layer is not quantised, as in transformers' own quantised models.
OUTPUT_LAYERS: Final = ("lm_head", "language_model.lm_head")


@dataclass(frozen=True, slots=True)
class Parts:
    """Which part of a model a parameter belongs to, by the start of its name; else "llm"."""

    prefixes: Mapping[str, str]

    def of(self, parameter: str) -> str:
        """Return "vision", "qformer", "projector" or "llm"."""
        found = (part for start, part in self.prefixes.items() if parameter.startswith(start))
        return next(found, "llm")

    def modules(self, *parts: str) -> list[str]:
        """Return the modules and parameters that some parts consist of."""
        return [name.rstrip(".") for name, part in self.prefixes.items() if part in parts]


@dataclass(frozen=True, slots=True)
class PartPrecision:
    """How one part computes."""

    linear: torch.dtype  # of linear layers' parameters
    other: torch.dtype  # of norms, embeddings, convolutions
    autocast: torch.dtype | None = None  # that matrix products are cast to

    def context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context that the part computes in."""
        enabled = self.autocast is not None
        return torch.autocast(device.type, self.autocast) if enabled else nullcontext()


@dataclass(frozen=True, slots=True)
class Precision:
    """How every part of a model computes; a model need not have them all."""

    name: str
    parts: Mapping[str, PartPrecision]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to load a model in, the lowest; the parts in `float32` are the exception."""
        dtypes = {dtype for part in self.parts.values() for dtype in (part.linear, part.other)}
        return min(dtypes, key=lambda dtype: dtype.itemsize)

    @property
    def float32(self) -> tuple[str, ...]:
        """The parts of which some or all parameters are more precise than `dtype`."""
        return tuple(
            name for name, part in self.parts.items() if {part.linear, part.other} != {self.dtype}
        )

    def cast(self, model: nn.Module, parts: Parts) -> None:
        """Give every parameter its dtype, in place; quantised weights, which are integers, stay."""
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
# EVA's linear layers are halved, its norms and embeddings are not; under autocast, so that the
# residual stream is float32. The convolution's weights are cast by autocast.
EVA: Final = PartPrecision(torch.float16, torch.float32, torch.float16)


def resolve_precision(name: str, device: str, mixed: Precision) -> Precision:
    """Return a precision by name, as `models.load` takes it; "mixed" is the wrapper's `mixed`.

    Raises:
        ModelError: If there is no such precision.
    """
    if name == AUTO:
        name = "float32" if device == "cpu" else MIXED
    if name == MIXED:
        return mixed
    if name not in DTYPES:
        raise ModelError(
            f"dtype {name!r} is unknown; use auto, mixed (as the paper's wrapper mixed float16 and "
            f"float32), {', '.join(DTYPES)}"
        )
    return uniform_precision(DTYPES[name])


def check_quantization(name: str | None, device: str) -> Quantization | None:
    """Return a quantisation by name.

    Raises:
        ModelError: If there is none of this name, or it can't be had here.
    """
    if name is None:
        return None
    if name not in ("8bit", "4bit"):
        raise ModelError(f"quantization {name!r} is unknown; use 8bit or 4bit")
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


def bits_and_bytes(
    kind: Quantization, dtype: torch.dtype | str, unquantized: Sequence[str]
) -> BitsAndBytesConfig:
    """Return how transformers quantises: LLM.int8(), or NF4 with double quantisation.

    Args:
        kind: "8bit" or "4bit".
        dtype: That 4-bit layers compute in.
        unquantized: Modules that keep their precision; if there are none, transformers chooses.
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
    """Return "cpu", "cuda:N", "mps" or "auto" (spread over all GPUs); the first GPU by default.

    Raises:
        ModelError: If there is no such device on this machine.
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
        raise ModelError(f"device {device!r} runs no model; use cpu, cuda:N or auto")
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
