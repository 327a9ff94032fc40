"""Triton kernels that choose the densest head from sums, and give its map to all heads.

They compute `method.choose` under a named rule, and `method.share_head`, in one launch each, with
the same divisions and comparisons in float32, so that equal sums give equal counts and heads.
Imported only where Triton runs; nothing waits for the GPU.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import struct
from typing import Final

import torch
import triton
import triton.language as tl

from eah.method import Choice, Columns
from eah.triton_host import contiguous_rows, on_device, with_copy

TILE: Final = 8192  # numbers that a program keeps in registers
LENGTHS: Final = ["keys", "attention_b", "uniform_b", "rows_b", "image_b", "fixed", "density"]
COPIED: Final = ["queries", "keys", "query_b", "key_b"]


def choose(
    columns: Columns,
    image: torch.Tensor,
    rule: str,
    threshold: float,
    unit: str | None,
    fixed: int | None,
    min_density: float,
) -> Choice:
    """Apply a named rule, then a fixed head and `min_density`.

    Args:
        columns: Sums per head and column.
        image: True at image tokens, shape (B, K).
        rule: A name of `method.RULES`.
        threshold: What a column's mean must exceed.
        unit: "uniform" for a threshold that counts in means under uniform attention.
        fixed: The head of prompts with an image; None to choose it.
        min_density: Least share of image tokens that must be sinks.
    Returns:
        What `method.choose` returns, up to ties of "scale_free" in which heads get the same
        attention to within float32's rounding.
    """
    attention, uniform, rows = (contiguous_rows(part) for part in columns)
    image = contiguous_rows(image)
    batch, heads, keys = attention.shape
    head = torch.empty(batch, dtype=torch.int64, device=attention.device)
    counts = torch.empty(batch, heads, dtype=torch.int64, device=attention.device)
    wide = 1 << (heads - 1).bit_length()
    with on_device(attention.device):
        choose_head[(batch,)](
            attention, uniform, rows, image.view(torch.uint8), head, counts,
            threshold, _bits(min_density), -1 if fixed is None else fixed, heads, keys,
            attention.stride(0), attention.stride(1), uniform.stride(0), rows.stride(0),
            image.stride(0), RULE=rule, IN_UNIFORM=unit == "uniform", HEADS=wide,
            BLOCK=max(16, TILE // wide), enable_fp_fusion=False,
        )  # fmt: skip
    return Choice(head, counts)


def share(
    query: torch.Tensor, key: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give all heads the query and key of one head, as `method.share_head`; in the same layout.

    Args:
        query: Shape (B, H, Q, D).
        key: Shape (B, N, K, D), N divides H.
        head: Shape (B,) int64; a batch row with -1 keeps its own.
    """
    (query, shared_query), (key, shared_key) = with_copy(query), with_copy(key)
    head = head.contiguous()
    batch, heads, queries, size = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    wide = 1 << (size - 1).bit_length()
    block = max(1, TILE // wide)
    query_b, query_h, query_q, _ = query.stride()
    key_b, key_h, key_k, _ = key.stride()
    with on_device(query.device):
        share_head[-(-max(queries, keys) // block), heads + kv_heads, batch](
            query, key, head, shared_query, shared_key, heads, heads // kv_heads, queries, keys,
            query_b, query_h, query_q, key_b, key_h, key_k,
            SIZE=size, BLOCK=block, BLOCK_D=wide, enable_fp_fusion=False,
        )  # fmt: skip
    return shared_query, shared_key


@triton.jit(do_not_specialize=LENGTHS)
def choose_head(
    attention, uniform, rows, image, head, counts, threshold, density, fixed, heads, keys,
    attention_b, attention_h, uniform_b, rows_b, image_b,
    RULE: tl.constexpr, IN_UNIFORM: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sinks of each head of a batch row, `counts`, and its densest head, or -1.

    Its arguments:
        attention: Sums of weights, (B, H, K).
        uniform: Sums of what an even spread would give, (B, K).
        rows: Numbers of rows, (B, K).
        image: Not 0 at image tokens, (B, K).
        head: (B,) int64.
        counts: (B, H) int64.
        threshold: What a mean must exceed, as float32.
        density: The bits of a float64: the least share of sinks among image tokens.
        fixed: The head of every batch row with an image; -1 to choose it.
        RULE: A name of `method.RULES`.
        IN_UNIFORM: Whether the threshold counts in means under uniform attention.
        HEADS: H or more.
    """
    b = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, HEADS)
    image += b * image_b
    first = keys
    tokens = 0
    for start in range(0, keys, BLOCK):
        y = start + tl.arange(0, BLOCK)
        wanted = tl.load(image + y, mask=y < keys, other=0) != 0
        tokens += tl.sum(wanted.to(tl.int32), 0)
        first = tl.minimum(first, tl.min(tl.where(wanted, y, keys), 0))

    sinks = tl.zeros((HEADS,), tl.int32)
    received = tl.zeros((HEADS,), tl.float32)
    for start in range(0, keys, BLOCK):
        y = start + tl.arange(0, BLOCK)
        wanted = tl.load(image + y, mask=y < keys, other=0) != 0
        number = tl.maximum(tl.load(rows + b * rows_b + y, mask=wanted, other=1.0), 1.0)
        divisor = number
        if RULE == "released_code":  # stop - (y - start)
            divisor = tl.maximum(2 * first + tokens - y, 1).to(tl.float32)
        indices = b * attention_b + h[:, None] * attention_h + y[None, :]
        ours = (h < heads)[:, None] & wanted[None, :]  # (HEADS, BLOCK)
        sums = tl.load(attention + indices, mask=ours, other=0.0)
        means = tl.div_rn(sums, tl.broadcast_to(divisor[None, :], (HEADS, BLOCK)))
        bound = tl.full((BLOCK,), 1.0, tl.float32) * threshold
        if IN_UNIFORM:
            even = tl.load(uniform + b * uniform_b + y, mask=wanted, other=0.0)
            bound = tl.div_rn(even, number) * threshold
        sinks += tl.sum((ours & (means > bound[None, :])).to(tl.int32), 1)
        received += tl.sum(means, 1)
    tl.store(counts + b * heads + h, sinks.to(tl.int64), mask=h < heads)

    most = tl.max(sinks, 0)
    best = (sinks == most) & (h < heads)
    if RULE == "scale_free":
        score = tl.where(best, received, -1.0)
        best = best & (score == tl.max(score, 0))
    chosen = tl.min(tl.where(best, h, HEADS), 0)
    share_of_sinks = most.to(tl.float64) / tl.maximum(tokens, 1).to(tl.float64)
    least = density.to(tl.int64).to(tl.float64, bitcast=True)
    found = (most > 0) & (share_of_sinks >= least)
    if RULE == "released_code":
        found = found & (chosen > 0) & (b == 0)
    chosen = tl.where(found, chosen, -1)
    if fixed >= 0:
        chosen = tl.where(tokens > 0, fixed, -1)
    tl.store(head + b, chosen.to(tl.int64))


@triton.jit
def _copy(
    start, goal, block, length, step,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Copy BLOCK rows of a matrix (length, SIZE) to one of the same layout."""
    row = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    indices = row * step + d
    inside = (row < length) & (d < SIZE)
    tl.store(goal + indices, tl.load(start + indices, mask=inside), mask=inside)


@triton.jit(do_not_specialize=COPIED)
def share_head(
    query, key, head, shared_query, shared_key, heads, group, queries, keys,
    query_b, query_h, query_q, key_b, key_h, key_k,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Copy BLOCK rows of the chosen head of a batch row to a query head or a key head.

    The grid's axes are blocks, query heads followed by key heads, and batch rows.
    """
    block = tl.program_id(0)
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    chosen = tl.load(head + b)
    if h < heads:
        query += b * query_b + tl.where(chosen < 0, h, chosen) * query_h
        goal = shared_query + b * query_b + h * query_h
        _copy(query, goal, block, queries, query_q, SIZE, BLOCK, BLOCK_D)
    else:
        h -= heads
        key += b * key_b + tl.where(chosen < 0, h, chosen // group) * key_h
        goal = shared_key + b * key_b + h * key_h
        _copy(key, goal, block, keys, key_k, SIZE, BLOCK, BLOCK_D)


def _bits(number: float) -> int:
    """Return the bits of a float64 as an integer."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
