"""Blocks of query rows, so that attention weights are never all in memory; float32 products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

CPU_BLOCK_BYTES: Final = 2 * 2**20  # fits into a core's cache
GPU_BLOCK_BYTES: Final = 256 * 2**20  # keeps a GPU busy
BLOCK_ROWS: Final = 64  # with fewer rows, a CPU's matrix products are slow
MIN_BLOCK_ROWS: Final = 16


def blocks_of(
    row_bytes: int, heads: int, group: int, num_rows: int, device: torch.device
) -> tuple[list[slice], Iterator[tuple[int, int]]]:
    """Return groups of heads and blocks [start, stop) of rows that are computed together.

    Args:
        row_bytes: Bytes of one row of one head.
        heads: Query heads.
        group: Query heads per key/value head, which are kept together.
        num_rows: Rows.
        device: Device of the computation.
    """
    budget = CPU_BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    rows = min(num_rows, BLOCK_ROWS)
    step = min(heads, group * max(1, budget // (row_bytes * group * rows)))
    block = min(num_rows, max(MIN_BLOCK_ROWS, budget // (row_bytes * step)))
    parts = [slice(first, min(first + step, heads)) for first in range(0, heads, step)]
    return parts, ((start, min(start + block, num_rows)) for start in range(0, num_rows, block))


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which matrix products stay in float32, also under autocast."""
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
