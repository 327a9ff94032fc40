"""The sums of `method.column_sums` for image columns alone, by two Triton kernels.

The counting needs the columns of the image tokens, while softmax needs whole rows. So one kernel
computes every row's log-sum-exp, block of keys by block of keys, and a second one sums
exp(score - log-sum-exp) down the image columns. Scores are computed twice and never kept: what is
written is O(B * H * (Q + K)). Nothing waits for the GPU, and equal inputs give equal bits.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
import logging
import os
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch

from eah import method
from eah.method import Columns
from eah.visibility import HIDDEN_BIAS, Visibility

logger = logging.getLogger(__name__)

DISABLE_VARIABLE: Final = "EAH_TRITON"  # set to 0: sinks are counted without the kernels
# What Triton supports; older devices get code without tensor cores, or none.
OLDEST_CAPABILITY: Final = (8, 0)

# Chosen from what the compiler reports for 8.0 to 9.0 and D up to 256: next to nothing spills to
# memory, and a program needs 81 KiB of shared memory at most, of the 99 KiB that all these devices
# have. Not tuned by timing where it runs, which would wait and change results between runs.
BLOCK: Final = 64  # query rows, and key columns
WARPS: Final = 8  # with 4, a thread's part of the tiles needs more registers than there are
STAGES: Final = 2
# Elements of a head that are multiplied at a time. 16-bit tiles stay whole up to D = 128; float32
# goes without tensor cores, whose operands are registers: more than 32 would spill.
BLOCK_D: Final = {torch.float32: 32, torch.float16: 128, torch.bfloat16: 128}
LEAST_D: Final = 16  # of a Triton product


def image_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    *,
    scaling: float,
    image: torch.Tensor,
    rounding: torch.dtype | None = None,
) -> Columns:
    """Sum attention weights down the image columns: by the kernels where they run, else by torch.

    Arguments as in `column_sums`. Other columns than the image's may be summed or 0. An opaque
    operator to torch.compile, so that counting breaks no graph.
    """
    mask, valid, window = visibility.mask, visibility.valid, visibility.window
    shown = (mask, valid, visibility.offset, window)
    return Columns(*_image_sums(query.detach(), key.detach(), image, *shown, scaling, rounding))


@torch.library.custom_op(
    "eah::image_sums",
    mutates_args=(),
    schema=(
        "(Tensor query, Tensor key, Tensor image, Tensor? mask, Tensor? valid, SymInt offset, "
        "SymInt? window, float scaling, ScalarType? rounding) -> (Tensor, Tensor, Tensor)"
    ),
)
def _image_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    image: torch.Tensor,
    mask: torch.Tensor | None,
    valid: torch.Tensor | None,
    offset: int,
    window: int | None,
    scaling: float,
    rounding: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    visibility = Visibility(offset, mask, valid, window)
    if is_usable(query):
        return column_sums(query, key, visibility, scaling=scaling, image=image, rounding=rounding)
    return method.column_sums(query, key, visibility, scaling=scaling, rounding=rounding)


@_image_sums.register_fake
def _(query: torch.Tensor, key: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    batch, heads, keys = query.shape[0], query.shape[1], key.shape[2]
    return tuple(
        _float32(query, *shape) for shape in ((batch, heads, keys), (batch, keys), (batch, keys))
    )


def is_usable(query: torch.Tensor) -> bool:
    """Tell whether the kernels run where a query lives; the first call tries and compiles them."""
    if (
        query.device.type != "cuda"
        or torch.version.hip is not None
        or os.getenv(DISABLE_VARIABLE) == "0"
    ):
        return False
    return _runs(query.device, query.dtype, query.shape[-1])


@functools.cache
def _runs(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Tell whether a small example runs; Triton needs a C compiler, for one."""
    if find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return False
    example = torch.zeros(1, 1, LEAST_D, size, dtype=dtype, device=device)
    image = torch.ones(1, LEAST_D, dtype=torch.bool, device=device)
    try:
        column_sums(example, example, Visibility(), scaling=1.0, image=image)
    except Exception as error:  # whatever a compiler, a linker or a driver may raise
        logger.warning("sinks are counted without Triton, which fails on %s: %s", device, error)
        return False
    return True


@torch.no_grad()
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

    Differs from `method.column_sums` by rounding, in columns that are not `image`,
    which get 0, and in rows that see no key, which count nothing even if they are tokens.

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
    kernels: Any = import_module("eah.triton_kernels")  # not before it is needed: it loads Triton
    batch, heads, queries, size = query.shape
    keys = key.shape[2]
    dtype = _tile_dtype(query, key)
    inputs = {
        "query": query,
        "key": key,
        **_mask_arguments(visibility, batch, queries, keys, query.device),
        "lse": _float32(query, batch, heads, queries),
        "share": _float32(query, batch, queries),
        "scaling": float(scaling),
        "heads": heads,
        "group": heads // key.shape[1],
        "queries": queries,
        "keys": keys,
        **_strides("query", "bhqd", query),
        **_strides("key", "bhkd", key),
        "SIZE": size,
        "TYPE": _triton_dtype(kernels, dtype),
        "BLOCK_Q": BLOCK,
        "BLOCK_K": BLOCK,
        "BLOCK_D": min(BLOCK_D[dtype], max(LEAST_D, 1 << (size - 1).bit_length())),
        "num_warps": WARPS,
        "num_stages": STAGES,
        "enable_fp_fusion": True,
    }
    columns = image.to(query.device).expand(batch, keys).view(torch.uint8)
    sums = Columns(
        _float32(query, batch, heads, keys),
        _float32(query, batch, keys),
        _float32(query, batch, keys),
    )
    with torch.cuda.device(query.device) if query.is_cuda else nullcontext():
        kernels.row_statistics[-(-queries // BLOCK), batch * heads](**inputs)
        kernels.sum_columns[-(-keys // BLOCK), batch * heads](
            **inputs,
            **_strides("image", "bk", columns),
            image=columns,
            attention=sums.attention,
            uniform=sums.uniform,
            number=sums.rows,
            ROUNDING=None if rounding is None else _triton_dtype(kernels, rounding),
        )
    return sums


def _tile_dtype(query: torch.Tensor, key: torch.Tensor) -> torch.dtype:
    """Return the dtype that both operands of a product have; products are summed in float32."""
    # Triton's interpreter, which runs on the CPU, has no bfloat16 products.
    is_interpreted = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if query.dtype != key.dtype or query.dtype not in BLOCK_D or is_interpreted:
        return torch.float32
    return query.dtype


def _mask_arguments(
    visibility: Visibility, batch: int, queries: int, keys: int, device: torch.device
) -> dict[str, Any]:
    """Return the kernels' arguments about a visibility, its masks neither copied nor repeated.

    Raises:
        RuntimeError: If a mask is too small.
    """
    mask, valid = visibility.mask, visibility.valid
    lowest = 0.0
    is_additive = mask is not None and mask.dtype != torch.bool
    if mask is not None:
        mask = mask.to(device)[:, 0, :queries, :keys].expand(batch, queries, keys)
        if is_additive:
            lowest = HIDDEN_BIAS
        else:
            mask = mask.view(torch.uint8)
    if valid is not None:
        end = visibility.offset + queries
        valid = valid.to(device)[:, :end].expand(batch, end).view(torch.uint8)
    return {
        "mask": mask,
        "valid": valid,
        "lowest": lowest,
        "offset": visibility.offset,
        **_strides("mask", "bqk", mask),
        **_strides("valid", "bk", valid),
        "ADDITIVE": is_additive,
        "WINDOW": visibility.window,
    }


def _strides(name: str, axes: str, tensor: torch.Tensor | None) -> dict[str, int]:
    """Return a tensor's strides by the names of the kernels' parameters."""
    steps = (0,) * len(axes) if tensor is None else tensor.stride()
    return {f"{name}_{axis}": step for axis, step in zip(axes, steps, strict=True)}


def _float32(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _triton_dtype(kernels: Any, dtype: torch.dtype) -> Any:
    return getattr(kernels.tl, str(dtype).removeprefix("torch."))
