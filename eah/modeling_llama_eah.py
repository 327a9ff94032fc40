"""EAH, the method: the head with the densest vision attention sinks gives its map to all heads.

"Shallow Focus, Deep Fixes" (arXiv 2411.09968): in a shallow decoder layer, at prefill,

1. A = softmax(Q K^T * scale + mask) in float32;
2. the mean of an image token's column of A is taken over the rows that see the column, its own
   row left out;
3. a column whose mean exceeds the threshold is a vision sink;
4. the head with most vision sinks is the densest head;
5. every head of the layer attends with that head's map, each with its own values.

Giving every head the map of head k is the same as giving every head the query and the key of
head k: out[h] = A_k V[h] = attention(Q[k], K[k], V[h]). So step 5 is a selection, after which the
model's own kernel runs, and only the sums of step 2 touch attention weights, a block of query rows
at a time. Nothing of size Q x K per head is ever kept.

This file needs nothing but torch, and holds the arithmetic once for everything that uses it.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import torch

NO_HEAD: Final = -1
CPU_BLOCK_BYTES: Final = 8 * 2**20
GPU_BLOCK_BYTES: Final = 256 * 2**20
MIN_BLOCK_ROWS: Final = 16

PRESETS: Final[dict[str, dict[str, Any]]] = {
    # The paper's method and settings: layer 1 counted from 0, threshold (beta) 0.002, as quoted in
    # secondary sources and in the README of the authors' release.
    "paper": {"layers": (1,), "threshold": 0.002},
    # What the authors' released modeling_llama_eah.py computes, checked by running it: layer, span,
    # threshold and divisor are literals there, head 0 can win the vote but is then ignored, and
    # only batch row 0 is looked at.
    "released-code": {
        "layers": (15,),
        "threshold": 0.0008,
        "image_span": (36, 611),
        "column_divisor": "released",
        "head_zero": "ignored",
        "batch_rows": "first",
        "rounding": "query-dtype",
    },
    # Ours. 0.002 is a number for prompts of about 620 tokens, where uniform attention is 0.0016; on
    # a prompt of 40 every column passes it. Here the threshold is a multiple of what uniform
    # attention would give the same column.
    "scale-free": {
        "layers": (1,),
        "threshold": 1.25,
        "threshold_unit": "uniform",
        "tie_break": "image-attention",
    },
}


@dataclass(frozen=True)
class SinkRule:
    """How vision sinks are counted and how the densest head follows from the counts.

    Attributes:
        threshold: A column whose mean is greater is a sink.
        threshold_unit: "attention": the threshold is an attention weight; "uniform": a multiple of
            the column's mean under uniform attention (1 / number of keys that the row sees).
        column_divisor: "visible-rows": the rows that were summed; "released": the authors' file,
            stop - (y - start) for column y of the image span [start, stop).
        tie_break: Between heads of equal count: "lowest-index" or "image-attention" (most of it).
        min_density: Smallest share of sinks among the image tokens, the paper's gamma.
        head_zero: "may-win", or "ignored": if head 0 wins, nothing happens.
        batch_rows: "all", or "first": only row 0 of the batch is changed.
        rounding: "none", or "query-dtype": weights are rounded to it before they are summed.
        head: Index of a head that is taken whatever the counts, or None.
    """

    threshold: float
    threshold_unit: Literal["attention", "uniform"] = "attention"
    column_divisor: Literal["visible-rows", "released"] = "visible-rows"
    tie_break: Literal["lowest-index", "image-attention"] = "lowest-index"
    min_density: float = 0.0
    head_zero: Literal["may-win", "ignored"] = "may-win"
    batch_rows: Literal["all", "first"] = "all"
    rounding: Literal["none", "query-dtype"] = "none"
    head: int | None = None


@dataclass(frozen=True)
class Visibility:
    """Which keys each query row sees, told the way the attention kernel is told.

    Attributes:
        offset: Position of query row 0 among the keys (number of cached tokens).
        mask: Mask of shape (B or 1, 1, Q, K or wider), True or 0 where a key is seen; None for
            causal attention.
        valid: True at tokens and False at padding, shape (B or 1, K); None if nothing is padded or
            the mask says it all.
        window: Sliding-window length in tokens, for causal attention without a mask.
    """

    offset: int = 0
    mask: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    window: int | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether this is causal attention and nothing else."""
        return self.mask is None and self.valid is None and self.window is None

    def stop_key(self, stop: int, num_keys: int) -> int:
        """Return the end of the keys that rows before `stop` can see."""
        return min(self.offset + stop, num_keys) if self.mask is None else num_keys

    def visible(self, start: int, stop: int, keys: int, device: torch.device) -> torch.Tensor:
        """Return what query rows [start, stop) see of keys [0, keys), (B or 1, rows, keys) bool."""
        if self.mask is not None:
            block = self.mask[:, 0, start:stop, :keys].to(device)
            return block if block.dtype == torch.bool else block > torch.finfo(block.dtype).min / 2
        position = torch.arange(start, stop, device=device)[:, None] + self.offset
        column = torch.arange(keys, device=device)[None, :]
        seen = column <= position
        if self.window is not None:
            seen = seen & (column > position - self.window)
        if self.valid is None:
            return seen[None]
        return seen[None] & self.valid[:, None, :keys].to(device)

    def bias(self, start: int, stop: int, keys: int) -> torch.Tensor | None:
        """Return what an additive mask adds to the scores, (B or 1, 1, rows, keys), if anything."""
        if self.mask is None or self.mask.dtype == torch.bool:
            return None
        return self.mask[:, :, start:stop, :keys]

    def token_rows(self, num_queries: int, device: torch.device) -> torch.Tensor:
        """Return which query rows are tokens and not padding, shape (B or 1, Q) bool."""
        if self.valid is not None:
            return self.valid[:, self.offset : self.offset + num_queries].to(device)
        if self.mask is None:
            return torch.ones(1, num_queries, dtype=torch.bool, device=device)
        whole = self.visible(0, num_queries, self.mask.shape[-1], device)
        return whole.diagonal(self.offset, dim1=1, dim2=2)[:, :num_queries]


class ColumnSums(NamedTuple):
    """Sums over the query rows that see a column, its own row and padding left out.

    Attributes:
        attention: Of attention weights, shape (B, H, K), float32.
        uniform: Of 1 / number of keys that the row sees, shape (B, K), float32.
        rows: Of 1: the number of such rows, shape (B, K), float32.
    """

    attention: torch.Tensor
    uniform: torch.Tensor
    rows: torch.Tensor


class HeadChoice(NamedTuple):
    """What was found in one layer at one prefill.

    Attributes:
        head: Densest head per batch row, -1 for none, shape (B,), int64.
        counts: Vision-sink columns per head, shape (B, H), int64.
        image_tokens: Image tokens per batch row, shape (B,), int64.
        saturated: Rows where every image token is a sink in every head, so that the counts say
            nothing, shape (B,), bool.
    """

    head: torch.Tensor
    counts: torch.Tensor
    image_tokens: torch.Tensor
    saturated: torch.Tensor


@torch.no_grad()
def column_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    *,
    scaling: float,
    rounding: torch.dtype | None = None,
) -> ColumnSums:
    """Sum each head's attention weights down the columns (steps 1 and 2), in blocks of rows.

    Args:
        query: Queries after position encoding, shape (B, H, Q, D).
        key: Keys after position encoding, shape (B, N, K, D), N divides H.
        visibility: Which keys the rows see.
        scaling: Factor on the scores, usually D ** -0.5.
        rounding: Weights are rounded to this dtype before they are summed; None for float32.
    Returns:
        Sums per head and column. Memory is O(B * H * block * K) on the way.
    """
    batch, heads, queries, size = query.shape
    kv_heads, num_keys = key.shape[1], key.shape[2]
    device = query.device
    key = key.float()
    tokens = visibility.token_rows(queries, device).float()  # (B or 1, Q)
    attention = torch.zeros(batch, heads, num_keys, device=device)
    uniform = torch.zeros(batch, num_keys, device=device)
    rows = torch.zeros(batch, num_keys, device=device)
    block = _rows_per_block(4 * batch * heads * num_keys, queries, device)
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        keys = visibility.stop_key(stop, num_keys)
        visible = visibility.visible(start, stop, keys, device)  # (B or 1, q, keys)
        # Grouped heads are folded into rows, so that keys are not repeated per head.
        folded = (query[:, :, start:stop].float() * scaling).reshape(batch, kv_heads, -1, size)
        scores = torch.matmul(folded, key[:, :, :keys].transpose(2, 3))  # (B, N, H / N * q, keys)
        scores = scores.view(batch, heads, stop - start, keys)  # (B, H, q, keys)
        bias = visibility.bias(start, stop, keys)
        if bias is not None:
            scores += bias
        # Causal rows all see what lies before their block; only the rest needs hiding.
        first = visibility.offset + start if visibility.is_plain else 0
        hidden = ~visible[:, None, :, first:]
        # Not -inf: a padding row sees no key at all, and its weights must stay finite.
        scores[..., first:].masked_fill_(hidden, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        if rounding is not None:
            weights = weights.to(rounding).float()
        own = visibility.offset + start
        weights.diagonal(own, dim1=2, dim2=3).zero_()
        counted = tokens[:, None, start:stop]  # (B or 1, 1, q)
        # (B or 1, 1, 1, q) @ (B, H, q, keys) -> (B, H, 1, keys)
        attention[..., :keys] += torch.matmul(counted[:, None], weights).squeeze(2)
        seen = visible.float()
        share = seen / seen.sum(-1, keepdim=True).clamp(min=1)
        for total, part in ((rows, seen), (uniform, share)):
            part.diagonal(own, dim1=1, dim2=2).zero_()
            total[:, :keys] += torch.matmul(counted, part).squeeze(1)  # (B or 1, keys)
    return ColumnSums(attention, uniform, rows)


def _rows_per_block(bytes_of_row: int, queries: int, device: torch.device) -> int:
    """Choose a block that fits a CPU's cache, or one that keeps a GPU busy."""
    budget = CPU_BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    return min(queries, max(MIN_BLOCK_ROWS, budget // bytes_of_row))


@torch.no_grad()
def choose_head(sums: ColumnSums, image: torch.Tensor, rule: SinkRule) -> HeadChoice:
    """Count vision sinks per head and choose the densest head (steps 3 and 4).

    Args:
        sums: What `column_sums` found.
        image: True at image tokens, shape (B, K).
        rule: How to count and choose.
    Returns:
        Head, counts and whether they say anything, per batch row.
    """
    means, uniform = _column_means(sums, image, rule)  # (B, H, K), (B, K)
    threshold = rule.threshold * (uniform[:, None] if rule.threshold_unit == "uniform" else 1.0)
    counts = ((means > threshold) & image[:, None]).sum(-1)  # (B, H)
    image_tokens = image.sum(-1)  # (B,)
    most = counts.amax(-1)  # (B,)
    if rule.tie_break == "image-attention":
        received = (means * image[:, None]).sum(-1)  # (B, H)
        head = torch.where(counts == most[:, None], received, -1.0).argmax(-1)
    else:
        head = counts.argmax(-1)  # the first of equals
    found = most > 0
    if rule.min_density > 0:
        # float64: a density that equals the bound is not below it
        found = found & (most.double() / image_tokens.clamp(min=1) >= rule.min_density)
    if rule.head is not None:
        head = torch.full_like(head, rule.head)
        found = image_tokens > 0
    if rule.head_zero == "ignored":
        found = found & (head != 0)
    if rule.batch_rows == "first":
        found = found & (torch.arange(len(found), device=found.device) == 0)
    saturated = (counts == image_tokens[:, None]).all(-1) & (image_tokens > 0)
    return HeadChoice(torch.where(found, head, NO_HEAD), counts, image_tokens, saturated)


def _column_means(
    sums: ColumnSums, image: torch.Tensor, rule: SinkRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide the sums by the number of rows, or by what the authors' file divides by."""
    if rule.column_divisor == "released":
        # Their span [start, stop) and column y: stop - (y - start), that is stop, stop - 1, ...
        first = image.int().argmax(-1, keepdim=True)  # (B, 1)
        stop = first + image.sum(-1, keepdim=True)
        divisor = stop - (torch.arange(image.shape[1], device=image.device) - first)  # (B, K)
    else:
        divisor = sums.rows
    divisor = divisor.clamp(min=1)
    return sums.attention / divisor[:, None], sums.uniform / divisor


def share_head(
    query: torch.Tensor, key: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give all heads the query and the key of one head (step 5).

    Args:
        query: Shape (B, H, Q, D).
        key: Shape (B, N, K, D).
        head: Head index per batch row, shape (B,); a row with -1 keeps its own.
    Returns:
        Query and key of the same shapes, for the model's attention kernel.
    """
    rows = torch.arange(query.shape[0], device=query.device)
    taken = head.clamp(min=0)
    group = query.shape[1] // key.shape[1]
    shared = (head != NO_HEAD)[:, None, None, None]  # (B, 1, 1, 1)
    query = torch.where(shared, query[rows, taken][:, None], query)  # (B, 1, Q, D) -> (B, H, Q, D)
    key = torch.where(shared, key[rows, taken // group][:, None], key)
    return query, key


def densest_head(
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    image: torch.Tensor,
    rule: SinkRule,
    *,
    scaling: float,
) -> HeadChoice:
    """Find the densest head of a layer at prefill (steps 1 to 4).

    Args:
        query: Queries after position encoding, shape (B, H, Q, D).
        key: Keys after position encoding, shape (B, N, K, D).
        visibility: Which keys the rows see.
        image: True at image tokens, shape (B, K).
        rule: How to count and choose.
        scaling: Factor on the scores.
    Returns:
        Head, counts and whether they say anything, per batch row.
    """
    rounding = query.dtype if rule.rounding == "query-dtype" else None
    sums = column_sums(query, key, visibility, scaling=scaling, rounding=rounding)
    return choose_head(sums, image, rule)
