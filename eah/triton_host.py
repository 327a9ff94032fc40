"""The sums of `method.column_sums` for image columns only, by two Triton kernels.

Counting needs the columns of the image tokens, while softmax needs whole rows. So one kernel
computes every row's log-sum-exp, in blocks of keys, and a second one sums
exp(score - log-sum-exp) down the image columns. Scores are computed twice and never stored: the
output is O(B * H * (Q + K)). Nothing waits for the GPU, and equal inputs give equal bits.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch

from eah.method import Columns
from eah.visibility import HIDDEN_BIAS, Visibility

logger = logging.getLogger(__name__)

DISABLE_VARIABLE: Final = "EAH_TRITON"  # 0: count sinks without the kernels
# Triton supports these devices; older ones get code without tensor cores, or none.
OLDEST_CAPABILITY: Final = (8, 0)

# Chosen from the compiler's reports for 8.0 to 9.0 and D up to 256: almost nothing spills, and a
# program needs at most 81 of the 99 KiB of shared memory that all these devices have. Not autotuned
# on the device, which would take time and change results between runs.
BLOCK: Final = 64  # query rows, and key columns
WARPS: Final = 8  # with 4, a thread would need more registers than there are
STAGES: Final = 2
# Elements of a head that are multiplied at a time. 16-bit tiles stay whole up to D = 128; float32
# goes without tensor cores, whose operands are registers: more than 32 would spill.
BLOCK_D: Final = {torch.float32: 32, torch.float16: 128, torch.bfloat16: 128}
LEAST_D: Final = 16  # of a Triton product


def is_usable(tensor: torch.Tensor, size: int | None = None) -> bool:
    """Return whether the kernels run on a tensor's device; the first call compiles and tries them.

    Args:
        tensor: A query, or another input of the kernels.
        size: Head size D to try them with; None for that of a query.
    """
    if (
        tensor.device.type != "cuda"
        or torch.version.hip is not None
        or os.getenv(DISABLE_VARIABLE) == "0"
    ):
        return False
    return _runs(tensor.device, tensor.dtype, tensor.shape[-1] if size is None else size)


@functools.cache
def _runs(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Return whether a small example is correct; it can fail without a C compiler, for example."""
    if find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return False
    try:
        import_module("eah.triton_trial").try_kernels(device, dtype, size)
    except torch.OutOfMemoryError:  # which says nothing about the kernels
        raise
    except Exception as error:  # whatever a compiler, a linker or a driver may raise
        logger.warning("sinks are counted without Triton, which fails on %s: %s", device, error)
        return False
    return True


def column_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    *,
    scaling: float,
    image: torch.Tensor,
    rounding: torch.dtype | None = None,
) -> Columns:
    """Sum each head's attention weights down the image columns (steps 1 and 2).

    Differs from `method.column_sums` by rounding, in columns outside `image`, which are 0, and in
    rows that see no key, which do not count even if they are tokens.

    Args:
        query: Queries after position encoding, shape (B, H, Q, D).
        key: Keys after position encoding, shape (B, N, K, D), N divides H.
        visibility: Which keys the rows see.
        scaling: Factor on the scores, usually D ** -0.5.
        image: True at image tokens, shape (B, K).
        rounding: Weights are rounded to this dtype before they are summed; None for float32.
    Returns:
        Sums per head and column.
    """
    kernels = sum_kernels()
    device = query.device
    query, key = contiguous_rows(query), contiguous_rows(key)
    batch, heads, queries, size = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    query_b, query_h, query_q, _ = query.stride()
    key_b, key_h, key_k, _ = key.stride()
    mask, valid = _mask_arguments(visibility, batch, queries, keys, device)
    mask_b, mask_q, mask_k = (0, 0, 0) if mask is None else mask.stride()
    valid_b = 0 if valid is None else valid.stride(0)
    image = contiguous_rows(image.to(device).expand(batch, keys))
    known = torch.empty((batch, heads + 1, queries), dtype=torch.float32, device=device)
    sums = Columns(
        torch.empty((batch, heads, keys), dtype=torch.float32, device=device),
        torch.empty((batch, keys), dtype=torch.float32, device=device),
        torch.empty((batch, keys), dtype=torch.float32, device=device),
    )
    lengths = float(scaling), heads // kv_heads, visibility.offset, queries, keys
    strides = (
        query_b, query_h, query_q, key_b, key_h, key_k, mask_b, mask_q, mask_k, valid_b,
    )  # fmt: skip
    lowest = HIDDEN_BIAS if mask is not None and mask.dtype.is_floating_point else 0.0
    constants = _constants(_tile_dtype(query, key), size, lowest, visibility.window)
    with on_device(device):
        kernels.row_statistics[-(-queries // BLOCK), heads, batch](
            query, key, mask, valid, known, *lengths, *strides, **constants
        )
        kernels.sum_columns[-(-keys // BLOCK), heads, batch](
            query, key, mask, valid, known, image.view(torch.uint8), *sums,
            *lengths, *strides, image.stride(0), ROUNDING=_triton_dtype(rounding), **constants,
        )  # fmt: skip
    return sums


@functools.cache
def sum_kernels() -> Any:
    """Return the kernels that sum columns; imported on first use, because they load Triton."""
    return import_module("eah.triton_kernels")


@functools.cache
def head_kernels() -> Any:
    """Return the module of kernels that choose and share."""
    return import_module("eah.triton_head")


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which kernels start on a device, which mostly is the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def with_copy(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor with contiguous rows, and an empty one of the same layout.

    A tensor whose elements share memory, or are spread over more, is copied.
    """
    tensor = contiguous_rows(tensor)
    empty = torch.empty_like(tensor)
    if empty.stride() != tensor.stride():
        tensor = tensor.contiguous()
        empty = torch.empty_like(tensor)
    return tensor, empty


def contiguous_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose last axis is contiguous; a copy where it isn't."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


@functools.cache
def _constants(dtype: torch.dtype, size: int, lowest: float, window: int | None) -> dict[str, Any]:
    """Return the arguments of both kernels that are compiled into them."""
    return {
        "SIZE": size,
        "TYPE": _triton_dtype(dtype),
        "LOWEST": lowest,
        "WINDOW": window,
        "BLOCK": BLOCK,
        "BLOCK_D": min(BLOCK_D[dtype], max(LEAST_D, 1 << (size - 1).bit_length())),
        "num_warps": WARPS,
        "num_stages": STAGES,
        "enable_fp_fusion": True,
    }


def _tile_dtype(query: torch.Tensor, key: torch.Tensor) -> torch.dtype:
    """Return the dtype that both operands of a product have; products are summed in float32."""
    # Triton's interpreter, which runs on the CPU, has no bfloat16 products.
    is_interpreted = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if query.dtype != key.dtype or query.dtype not in BLOCK_D or is_interpreted:
        return torch.float32
    return query.dtype


def _mask_arguments(
    visibility: Visibility, batch: int, queries: int, keys: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return a visibility's mask, (B, Q, K), and its tokens, (B, K), as the kernels take them.

    Raises:
        RuntimeError: If a mask is too small.
    """
    mask, valid = visibility.mask, visibility.valid
    if mask is not None:
        mask = mask.to(device)[:, 0, :queries, :keys].expand(batch, queries, keys)
        mask = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
    if valid is not None:
        end = visibility.offset + queries
        valid = contiguous_rows(valid.to(device)[:, :end].expand(batch, end)).view(torch.uint8)
    return mask, valid


@functools.cache
def _triton_dtype(dtype: torch.dtype | None) -> Any:
    if dtype is None:
        return None
    return getattr(sum_kernels().tl, str(dtype).removeprefix("torch."))
