"""Refuse NaN and infinite weights: a model would still answer, but wrongly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch

from models.errors import ModelError
from models.library_errors import one_line

# Dtypes that `aminmax` supports on every device; it takes 0.04 s per gigabyte, `isfinite` 1 s.
CHECKED: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def refuse_nonfinite(where: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Check that weights are finite numbers, each read once.

    Args:
        where: Their file or checkpoint, for the message.
        tensors: By name, in the dtype of the computation, since float16 can overflow.
    Raises:
        ModelError: Naming the first tensor with NaN or infinity.
    """
    for name, tensor in tensors:
        if is_finite(tensor.detach()):
            continue
        kind = str(tensor.dtype).removeprefix("torch.")
        half = tensor.dtype is torch.float16
        raise ModelError(
            f"{where} contains NaN or infinite numbers in {one_line(name)} (as {kind}); "
            + ("it is damaged, or has numbers too large for float16" if half else "it is damaged")
            + ": download it again"
            + (", or use --dtype bfloat16 or float32" if half else "")
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor are finite; True for other dtypes than floats."""
    if tensor.is_meta or tensor.numel() == 0 or tensor.dtype not in CHECKED:
        return True
    return bool(
        torch.stack(torch.aminmax(tensor)).isfinite().all()
    )  # NaN becomes both minimum and maximum
