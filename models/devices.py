"""Where a model runs and in which precision."""

from __future__ import annotations

from typing import Final

import torch

from models.errors import ModelError

AUTO: Final = "auto"
DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


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
    if wanted.type == "cuda":
        count = torch.cuda.device_count()
        index = wanted.index or 0
        if index >= count:
            have = f"{count} (0..{count - 1})" if count else "none"
            raise ModelError(
                f"GPU {index} does not exist; this machine has {have}: "
                "use --gpu-id with one of them, or --gpu-id -1 for the CPU"
            )
        return f"cuda:{index}"
    return str(wanted)
