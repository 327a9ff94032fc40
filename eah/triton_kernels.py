"""The Triton kernels that sum attention weights down image columns, for triton_host.py.

A program works on tiles of BLOCK query rows and BLOCK key columns of one head's scores, computed
from BLOCK_D elements of the head at a time, in float32. A score of -inf marks a key that the row
does not see.

Arguments of both kernels:
    query, key, mask, valid: Pointers. mask may be None for causal attention, valid for no padding.
        `query_b`, `query_h`, ... are strides of batch, head, query and key; others are 1.
    known: Row statistics, (B, H + 1, Q), float32: per head, the log-sum-exp of the row's scores;
        after the heads, 1 / number of keys that the row sees, 0 for rows that don't count.
    group: Query heads per key/value head.
    offset: Position of query row 0 among the keys.
    SIZE: D, the head size.
    TYPE: Dtype in which tiles are multiplied.
    LOWEST: A key is seen where the mask is greater; below 0, the mask is part of the scores.
    WINDOW: Length of the sliding window, or None.
    BLOCK: Rows and columns of a tile.

The grid's axes are blocks, heads and batch rows.

Axes: B batch, H query heads, Q queries, K keys, D head size.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import triton
import triton.language as tl

# They differ from prompt to prompt; specializing on multiples of 16 would compile again.
LENGTHS = ["offset", "queries", "keys", "mask_b", "mask_q", "valid_b", "image_b"]


@triton.jit
def _tile(
    start, rows, wanted, first, step,
    SIZE: tl.constexpr, TYPE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Return BLOCK_D elements of some rows of a matrix, 0 where not wanted, (rows, BLOCK_D)."""
    d = first + tl.arange(0, BLOCK_D)
    indices = rows.to(tl.int64)[:, None] * step + d[None, :]
    return tl.load(start + indices, mask=wanted[:, None] & (d < SIZE)[None, :], other=0.0).to(TYPE)


@triton.jit
def _scores(
    query, key, mask, valid, rows, columns, wanted, scaling, offset, queries, keys,
    query_q, key_k, mask_q, mask_k,
    SIZE: tl.constexpr, TYPE: tl.constexpr, LOWEST: tl.constexpr, WINDOW: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Return a tile of scores, -inf where a row does not see a key, (BLOCK, BLOCK)."""
    scores = tl.zeros((BLOCK, BLOCK), tl.float32)
    for d in range(0, SIZE, BLOCK_D):
        q = _tile(query, rows, rows < queries, d, query_q, SIZE, TYPE, BLOCK_D)
        k = _tile(key, columns, wanted, d, key_k, SIZE, TYPE, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), scores, input_precision="ieee")
    scores *= scaling
    position = offset + rows
    seen = (rows < queries)[:, None] & (columns < keys)[None, :]
    if mask is not None:
        indices = rows.to(tl.int64)[:, None] * mask_q + columns.to(tl.int64)[None, :] * mask_k
        mask_tile = tl.load(mask + indices, mask=seen, other=0).to(tl.float32)
        seen = seen & (mask_tile > LOWEST)
        if LOWEST < 0:
            scores += mask_tile
    else:
        seen = seen & (columns[None, :] <= position[:, None])
        if WINDOW is not None:
            seen = seen & (columns[None, :] > position[:, None] - WINDOW)
        if valid is not None:
            token = tl.load(valid + columns, mask=columns < offset + queries, other=0)
            seen = seen & (token != 0)[None, :]
    return tl.where(seen, scores, float("-inf"))


@triton.jit(do_not_specialize=LENGTHS[:-1])
def row_statistics(
    query, key, mask, valid, known, scaling, group, offset, queries, keys,
    query_b, query_h, query_q, key_b, key_h, key_k, mask_b, mask_q, mask_k, valid_b,
    SIZE: tl.constexpr, TYPE: tl.constexpr, LOWEST: tl.constexpr, WINDOW: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write statistics of BLOCK rows of a batch row and head; head 0 also writes the share."""
    block = tl.program_id(0)
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    levels = known + (b * (heads + 1) + h) * queries
    shares = known + (b * (heads + 1) + heads) * queries
    rows = block * BLOCK + tl.arange(0, BLOCK)
    inside = rows < queries
    query += b * query_b + h * query_h
    key += b * key_b + h // group * key_h
    if mask is not None:
        mask += b * mask_b
    if valid is not None:
        valid += b * valid_b

    first = 0
    last = keys
    if mask is None:
        last = tl.minimum(offset + (block + 1) * BLOCK, keys)
        if WINDOW is not None:
            first = tl.maximum(offset + block * BLOCK - WINDOW + 1, 0)
    # Finite, so that exp(-inf - top) is 0 in rows that have seen no key.
    top = tl.full((BLOCK,), -3.0e38, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    number = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, last, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        scores = _scores(
            query, key, mask, valid, rows, columns, columns < keys, scaling, offset,
            queries, keys, query_q, key_k, mask_q, mask_k,
            SIZE, TYPE, LOWEST, WINDOW, BLOCK, BLOCK_D,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        top = higher
        if h == 0:
            number += tl.sum((scores > float("-inf")).to(tl.float32), 1)
    # The total of a row that sees a key is at least 1.
    tl.store(levels + rows, top + tl.log(tl.maximum(total, 1.0)), mask=inside)

    if h == 0:
        counted = inside & (number > 0)
        position = (offset + rows).to(tl.int64)
        if valid is not None:
            token = tl.load(valid + position, mask=inside, other=0)
            counted = counted & (token != 0)
        elif mask is not None:
            indices = rows.to(tl.int64) * mask_q + position * mask_k
            own = tl.load(mask + indices, mask=inside & (position < keys), other=0).to(tl.float32)
            counted = counted & (own > LOWEST)
        even = tl.where(counted, 1.0 / tl.maximum(number, 1.0), 0.0)
        tl.store(shares + rows, even, mask=inside)


@triton.jit(do_not_specialize=LENGTHS)
def sum_columns(
    query, key, mask, valid, known, image, attention, uniform, number,
    scaling, group, offset, queries, keys,
    query_b, query_h, query_q, key_b, key_h, key_k, mask_b, mask_q, mask_k, valid_b, image_b,
    SIZE: tl.constexpr, TYPE: tl.constexpr, LOWEST: tl.constexpr, WINDOW: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, ROUNDING: tl.constexpr,
):  # fmt: skip
    """Write the sums of BLOCK columns of a batch row and head, 0 for columns without image.

    Its own arguments:
        image: Not 0 at image tokens, (B, K).
        attention: Sums of weights, (B, H, K).
        uniform: Sums of shares, (B, K); written for head 0.
        number: Numbers of rows, (B, K); written for head 0.
        ROUNDING: Weights are rounded to this type before they are summed, or None.
    """
    block = tl.program_id(0)
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    levels = known + (b * (heads + 1) + h) * queries
    shares = known + (b * (heads + 1) + heads) * queries
    columns = block * BLOCK + tl.arange(0, BLOCK)
    inside = columns < keys
    wanted = tl.load(image + b * image_b + columns, mask=inside, other=0) != 0
    query += b * query_b + h * query_h
    key += b * key_b + h // group * key_h
    if mask is not None:
        mask += b * mask_b
    if valid is not None:
        valid += b * valid_b

    first = 0
    last = queries
    if mask is None:
        first = tl.maximum(block * BLOCK - offset, 0)
        if WINDOW is not None:
            last = tl.minimum((block + 1) * BLOCK - 1 + WINDOW - offset, queries)
    # Without an image column the loop ends before it begins.
    last = tl.where(tl.max(wanted.to(tl.int32), 0) > 0, last, 0)
    # Summed over BLOCK at the end: in the loop, warps would exchange their sums at every step.
    sums = tl.zeros((BLOCK, BLOCK), tl.float32)
    even_sums = tl.zeros((BLOCK,), tl.float32)
    counts = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, last, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        scores = _scores(
            query, key, mask, valid, rows, columns, wanted, scaling, offset,
            queries, keys, query_q, key_k, mask_q, mask_k,
            SIZE, TYPE, LOWEST, WINDOW, BLOCK, BLOCK_D,
        )  # fmt: skip
        level = tl.load(levels + rows, mask=rows < queries, other=0.0)
        even = tl.load(shares + rows, mask=rows < queries, other=0.0)
        others = (offset + rows)[:, None] != columns[None, :]
        counted = (scores > float("-inf")) & (even > 0)[:, None] & others
        weights = tl.exp(scores - level[:, None])
        if ROUNDING is not None:
            weights = weights.to(ROUNDING).to(tl.float32)
        sums += tl.where(counted, weights, 0.0)
        if h == 0:
            even_sums += tl.sum(tl.where(counted, even[:, None], 0.0), 0)
            counts += tl.sum(counted.to(tl.float32), 0)
    tl.store(
        attention + (b * heads + h) * keys + columns,
        tl.where(wanted, tl.sum(sums, 0), 0.0),
        mask=inside,
    )
    if h == 0:
        tl.store(uniform + b * keys + columns, tl.where(wanted, even_sums, 0.0), mask=inside)
        tl.store(number + b * keys + columns, tl.where(wanted, counts, 0.0), mask=inside)
