"""EAH: the attention head with the densest vision sinks gives its map to all heads of its layer.

"Shallow Focus, Deep Fixes" (arXiv 2411.09968). In a shallow decoder layer, at prefill:

1. A = softmax(Q K^T * scale + mask), in float32                                 attention_rows
2. mean of an image token's column of A, over the rows that see it but its own   column_sums
3. a column whose mean exceeds the threshold is a vision sink                    find_sinks
4. the head with most sinks is the densest head                                  paper, choose
5. every head attends with that head's map, each with its own values             share_map

Giving every head the map of head k is giving every head the query and key of head k:
out[h] = A_k V[h] = attention(Q[k], K[k], V[h]). So step 5 is an index, after which the model's own
kernel runs. Only steps 1 and 2 touch attention weights, a block of rows at a time.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
Throughout: query (B, H, Q, D), key and value (B, N, K, D), image (B, K), True at image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from eah.blocks import blocks_of, no_autocast
from eah.settings import PAPER_THRESHOLD, RELEASED_THRESHOLD, SCALE_FREE_THRESHOLD
from eah.visibility import Visibility

NO_HEAD: Final = -1


class Columns(NamedTuple):
    """Sums over the prompt's rows that see a column, its own row left out; float32."""

    attention: Tensor  # of attention weights, (B, H, K)
    uniform: Tensor  # of what the row would give it if it spread its attention evenly, (B, K)
    rows: Tensor  # of 1: the number of these rows, (B, K)

    @property
    def means(self) -> Tensor:
        """Mean attention that each column receives, (B, H, K)."""
        return self.attention / self.rows.clamp(min=1)[:, None]

    @property
    def uniform_means(self) -> Tensor:
        """What `means` would be under uniform attention, (B, K)."""
        return self.uniform / self.rows.clamp(min=1)


class Choice(NamedTuple):
    """What a rule found in each row of the batch."""

    head: Tensor  # index of the densest head, -1 for none, (B,) int64
    counts: Tensor  # sinks per head, (B, H) int64
    receivers: Tensor | None = None  # heads that get its map, (B, H) bool; None for all


def attention_rows(
    query: Tensor, key: Tensor, visibility: Visibility, scaling: float
) -> Callable[..., Tensor]:
    """Return a function that computes rows [start, stop) of A on the first keys (step 1)."""
    key, batch, size, group = key.float(), *query.shape[::3], query.shape[1] // key.shape[1]

    def rows(start: int, stop: int, keys: int, visible: Tensor, heads: slice) -> Tensor:
        kv = key[:, heads.start // group : heads.stop // group, :keys]  # (B, n, keys, D)
        # Grouped heads are folded into rows, so that keys are not repeated per head.
        folded = (query[:, heads, start:stop].float() * scaling).reshape(*kv.shape[:2], -1, size)
        with no_autocast(key.device):
            scores = torch.matmul(folded, kv.transpose(2, 3))  # (B, n, H/N * q, keys)
        scores = scores.view(batch, -1, stop - start, keys)  # (B, h, q, keys)
        bias = visibility.bias(start, stop, keys)
        scores = scores if bias is None else scores.add_(bias)
        # All causal rows see the keys before their block; only the rest needs masking.
        first = visibility.offset + start if visibility.is_plain else 0
        # Not -inf: a padding row sees no key, and its weights must stay finite.
        scores[..., first:].masked_fill_(~visible[:, None, :, first:], torch.finfo(torch.float).min)
        return torch.softmax(scores, dim=-1)

    return rows


@torch.no_grad()
def column_sums(
    query: Tensor, key: Tensor, visibility: Visibility, *,
    scaling: float, rounding: torch.dtype | None = None, rows: Callable[..., Tensor] | None = None,
) -> Columns:  # fmt: skip
    """Sum attention weights down the columns (step 2), a block of rows at a time.

    `rounding` is a dtype that weights are rounded to before they are summed; `rows` returns copies
    of weights that exist already, instead of `attention_rows`.
    """
    (batch, heads, queries, _), num_keys, device = query.shape, key.shape[2], query.device
    rows = rows or attention_rows(query, key, visibility, scaling)
    axes = (batch, heads, num_keys), (batch, num_keys), (batch, num_keys)
    sums = Columns(*(torch.zeros(size, device=device) for size in axes))
    counted = visibility.token_rows(queries, device).float()[:, None]  # (B or 1, 1, Q)
    parts, blocks = blocks_of(4 * batch * num_keys, heads, heads // key.shape[1], queries, device)
    for start, stop in blocks:
        keys = visibility.stop_key(stop, num_keys)
        visible = visibility.visible(start, stop, keys, device)  # (B or 1, q, keys)
        own, block = visibility.offset + start, counted[:, :, start:stop]  # (B or 1, 1, q)
        seen = visible.float()
        share = seen / seen.sum(-1, keepdim=True).clamp(min=1)
        both = (sums.uniform[:, None], share[:, None]), (sums.rows[:, None], seen[:, None])
        maps = (rows(start, stop, keys, visible, h).to(rounding or torch.float) for h in parts)
        each = ((sums.attention[:, h], part.float()) for h, part in zip(parts, maps))  # noqa: B905
        for total, values in chain(both, each):  # (B, h, K), (B, h, q, keys)
            values.diagonal(own, dim1=-2, dim2=-1).zero_()  # a column's own row is left out
            with no_autocast(device):
                total[..., :keys] += torch.matmul(block[:, None], values).squeeze(2)
    return sums


def find_sinks(
    columns: Columns, image: Tensor, threshold: float, unit: str = "attention"
) -> Tensor:
    """Return each head's sinks (step 3), (B, H, K) bool; "uniform" counts in `uniform_means`."""
    bound = threshold * columns.uniform_means[:, None] if unit == "uniform" else threshold
    return (columns.means > bound) & image[:, None]


def paper(
    columns: Columns, image: Tensor,
    threshold: float = PAPER_THRESHOLD, threshold_unit: str = "attention",
) -> Choice:  # fmt: skip
    """Choose the head with most sinks, lowest index on ties, none without a sink."""
    counts = find_sinks(columns, image, threshold, threshold_unit).sum(-1)
    return Choice(torch.where(counts.amax(-1) > 0, counts.argmax(-1), NO_HEAD), counts)


def scale_free(
    columns: Columns, image: Tensor,
    threshold: float = SCALE_FREE_THRESHOLD, threshold_unit: str = "uniform",
) -> Choice:  # fmt: skip
    """Compare with uniform attention; ties go to the head with most image attention (ours)."""
    counts = find_sinks(columns, image, threshold, threshold_unit).sum(-1)
    most = counts.amax(-1, keepdim=True)  # (B, 1)
    received = (columns.means * image[:, None]).sum(-1)  # (B, H)
    head = torch.where(counts == most, received, -1.0).argmax(-1)
    return Choice(torch.where(most[:, 0] > 0, head, NO_HEAD), counts)


def released_columns(columns: Columns, image: Tensor) -> Columns:
    """Return the sums with what the authors' file divides them by, stop - (y - start)."""
    start = image.int().argmax(-1, keepdim=True)  # (B, 1)
    y = torch.arange(image.shape[1], device=image.device)
    return columns._replace(rows=start + image.sum(-1, keepdim=True) - (y - start))  # (B, K)


def released_code(columns: Columns, image: Tensor, threshold: float = RELEASED_THRESHOLD) -> Choice:
    """Choose as the authors' modeling_llama_eah.py: in batch row 0 only, and never head 0."""
    counts = find_sinks(released_columns(columns, image), image, threshold).sum(-1)
    head, row = counts.argmax(-1), torch.arange(len(counts), device=counts.device)
    found = (counts.amax(-1) > 0) & (head > 0) & (row == 0)
    return Choice(torch.where(found, head, NO_HEAD), counts)


RULES: Final = {"paper": paper, "scale_free": scale_free, "released_code": released_code}


def choose(columns: Columns, image: Tensor, config: Any) -> Choice:
    """Apply the rule of an `EAHConfig`, then its head, min_density and receivers (step 4)."""
    rule: Any = config.rule if callable(config.rule) else RULES[config.rule]
    head, counts, receivers = rule(columns, image, **config.rule_arguments)
    if config.head is not None:
        head = torch.where(image.any(-1), config.head, NO_HEAD)
    elif config.min_density > 0:  # float64: a density that equals the bound is not below it
        sinks = counts.gather(-1, head.clamp(min=0)[:, None])[:, 0].double()
        dense = sinks / image.sum(-1).clamp(min=1) >= config.min_density
        head = torch.where(dense, head, NO_HEAD)
    if config.receivers != "all":
        fewest = counts.argsort(stable=True)[:, : config.receivers]
        receivers = torch.zeros_like(counts, dtype=torch.bool).scatter(-1, fewest, True)
    return Choice(head, counts, receivers)


def share_head(query: Tensor, key: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Give all heads the query and key of one head; a batch row with head -1 keeps its own."""
    row, taken = torch.arange(len(head), device=head.device), head.clamp(min=0)
    group = query.shape[1] // key.shape[1]
    shared = (head != NO_HEAD)[:, None, None, None]  # (B, 1, 1, 1)
    query = torch.where(shared, query[row, taken][:, None], query)  # (B, 1, Q, D) -> (B, H, Q, D)
    return query, torch.where(shared, key[row, taken // group][:, None], key)


def share_map(
    query: Tensor, key: Tensor, value: Tensor, choice: Choice, attend: Any, share: Any = share_head
) -> Tensor:
    """Let the receivers attend with the densest head's map (step 5).

    `attend` is the model's kernel: (query, key, value) to output, (B, Q, H, D).
    """
    shared: Tensor = attend(*share(query, key, choice.head), value)
    if choice.receivers is None:
        return shared
    own = attend(query, key, value)
    return torch.where(choice.receivers[:, None, :, None], shared, own)
