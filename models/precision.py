"""In which precision each part of a model computes.

The reference wrappers mix precisions, each in its own way: some parts in float32, some in float16,
some of either under autocast. `--dtype mixed` is that way, the default on a GPU; a plain dtype is
the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from models.devices import AUTO, DTYPES
from models.errors import ModelError

MIXED: Final = "mixed"
PART_NAMES: Final = ("vision", "qformer", "projector", "llm")


@dataclass(frozen=True, slots=True)
class PartPrecision:
    """How one part computes.

    Attributes:
        linear: Dtype of the linear layers' parameters.
        other: Dtype of all other parameters: norms, embeddings, convolutions.
        autocast: Dtype that matrix products are cast to; None for none.
    """

    linear: torch.dtype
    other: torch.dtype
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context that the part computes in."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


@dataclass(frozen=True, slots=True)
class Precision:
    """How every part of a model computes; a model need not have them all."""

    name: str
    parts: Mapping[str, PartPrecision]

    def dtype_of(self, part: str, module: nn.Module) -> torch.dtype:
        """Return the dtype of a module's own parameters."""
        precision = self.parts[part]
        return precision.linear if isinstance(module, nn.Linear) else precision.other


def uniform(dtype: torch.dtype) -> Precision:
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
    """Return a precision by name.

    Args:
        name: "auto" (mixed on a GPU, float32 on a CPU), "mixed", or a torch dtype's name.
        device: "cpu", "cuda:N" or "auto".
        mixed: What the model's reference wrapper does.
    Raises:
        ModelError: If there is no such precision.
    """
    if name == AUTO:
        return uniform(torch.float32) if device == "cpu" else mixed
    if name == MIXED:
        return mixed
    if name not in DTYPES:
        raise ModelError(
            f"dtype {name!r} is unknown; use auto, mixed (as the paper's wrapper mixed float16 and "
            f"float32), {', '.join(DTYPES)}"
        )
    return uniform(DTYPES[name])
