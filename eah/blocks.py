"""Blocks of query rows, so that attention weights are never all in memory, and float32 products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

CPU_BLOCK_BYTES: Final = 8 * 2**20  # fits a CPU's cache
GPU_BLOCK_BYTES: Final = 256 * 2**20  # keeps a GPU busy
MIN_BLOCK_ROWS: Final = 16


def row_blocks(row_bytes: int, num_rows: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield blocks [start, stop) of rows that take so many bytes each."""
    budget = CPU_BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    block = min(num_rows, max(MIN_BLOCK_ROWS, budget // row_bytes))
    for start in range(0, num_rows, block):
        yield start, min(start + block, num_rows)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which matrix products keep float32, whatever the model runs in."""
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
