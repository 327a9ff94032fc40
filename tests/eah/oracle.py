"""The method of EAH once more, in plain Python floats, loops and ifs, to compare with.

Written from the description of the method and not from the package. Lists are indexed like the
axes: b batch row, h query head, x query row, y key column, d element of a head. Query row x is the
token at key position `offset + x`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch

Rows = list[list[float]]


@dataclass
class Prefill:
    """One layer's inputs at prefill."""

    query: torch.Tensor  # (B, H, Q, D)
    key: torch.Tensor  # (B, N, K, D)
    value: torch.Tensor  # (B, N, K, D)
    image: list[list[bool]]  # [b][y]: is an image token
    padding: list[int]  # [b]: number of padding tokens on the left
    offset: int = 0
    window: int | None = None
    scaling: float = 1.0
    bias: Rows | None = None  # [x][y]: what the mask adds to the scores

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    def is_token(self, b: int, y: int) -> bool:
        return y >= self.padding[b]

    def sees(self, b: int, x: int, y: int) -> bool:
        position = self.offset + x
        if not self.is_token(b, y) or y > position:
            return False
        return self.window is None or y > position - self.window


def attention_map(case: Prefill, b: int, h: int) -> Rows:
    """Return softmax(Q K^T * scale + mask) of one head as [x][y]; a row that sees nothing is 0."""
    _, heads, queries, keys = case.shape
    kv_head = h // (heads // case.key.shape[1])
    q, k = case.query[b, h].tolist(), case.key[b, kv_head].tolist()
    result = []
    for x in range(queries):
        scores = {}
        for y in range(keys):
            if case.sees(b, x, y):
                scores[y] = case.scaling * sum(i * j for i, j in zip(q[x], k[y], strict=True))
                if case.bias is not None:
                    scores[y] += case.bias[x][y]
        top = max(scores.values(), default=0.0)
        total = sum(math.exp(score - top) for score in scores.values())
        row = [0.0] * keys
        for y, score in scores.items():
            row[y] = math.exp(score - top) / total
        result.append(row)
    return result


def rows_of_column(case: Prefill, b: int, y: int) -> list[int]:
    """Return the query rows that count for a column: tokens that see it, without its own row."""
    rows = []
    for x in range(case.shape[2]):
        position = case.offset + x
        if case.is_token(b, position) and position != y and case.sees(b, x, y):
            rows.append(x)
    return rows


def column_sum(case: Prefill, weights: Rows, b: int, y: int) -> float:
    return sum(weights[x][y] for x in rows_of_column(case, b, y))


def column_mean(case: Prefill, weights: Rows, b: int, y: int) -> float:
    rows = rows_of_column(case, b, y)
    return column_sum(case, weights, b, y) / len(rows) if rows else 0.0


def uniform_mean(case: Prefill, b: int, y: int) -> float:
    """Return the mean that the column has where every row spreads its attention evenly."""
    rows = rows_of_column(case, b, y)
    shares = []
    for x in rows:
        seen = [z for z in range(case.shape[3]) if case.sees(b, x, z)]
        shares.append(1.0 / len(seen))
    return sum(shares) / len(rows) if rows else 0.0


def image_means(case: Prefill, b: int, *, relative: bool = False) -> Rows:
    """Return [h][i]: the means of the image columns, relative to uniform attention if asked."""
    means = []
    for h in range(case.shape[1]):
        weights = attention_map(case, b, h)
        row = []
        for y, is_image in enumerate(case.image[b]):
            if is_image:
                mean = column_mean(case, weights, b, y)
                even = uniform_mean(case, b, y) if relative else 1.0
                row.append(mean / even if even else 0.0)
        means.append(row)
    return means


def sink_counts(means: Rows, threshold: float) -> list[int]:
    counts = []
    for row in means:
        count = 0
        for mean in row:
            if mean > threshold:
                count += 1
        counts.append(count)
    return counts


def densest(
    counts: list[int],
    image_tokens: int,
    *,
    min_density: float = 0.0,
    received: list[float] | None = None,
) -> int:
    """Return the densest head or -1; `received`, where given, decides between equal counts."""
    best = 0
    for h, count in enumerate(counts):
        ties_and_sees_more = (
            count == counts[best] and received is not None and received[h] > received[best]
        )
        if count > counts[best] or ties_and_sees_more:
            best = h
    if counts[best] == 0 or counts[best] / image_tokens < min_density:
        return -1
    return best


def fewest_sinks(counts: list[int], number: int) -> list[int]:
    """Return the heads with fewest sinks, one after the other, the first of equals first."""
    taken: list[int] = []
    for _ in range(number):
        best = -1
        for h, count in enumerate(counts):
            if h not in taken and (best < 0 or count < counts[best]):
                best = h
        taken.append(best)
    return taken


def layer_output(
    case: Prefill, b: int, head: int, receivers: list[int] | None = None
) -> torch.Tensor:
    """Return the attention output of batch row b, shape (H, Q, D).

    Receivers (all heads if None) attend with the map of `head`, the others with their own; all
    with their own if it is -1.
    """
    _, heads, queries, keys = case.shape
    group = heads // case.value.shape[1]
    size = case.value.shape[-1]
    output = torch.zeros(heads, queries, size)
    shared = attention_map(case, b, head) if head >= 0 else None
    for h in range(heads):
        is_own = shared is None or (receivers is not None and h not in receivers)
        weights = attention_map(case, b, h) if is_own else shared
        v = case.value[b, h // group].tolist()
        for x in range(queries):
            for d in range(size):
                output[h, x, d] = sum(weights[x][y] * v[y][d] for y in range(keys))
    return output


def threshold_with_margin(means: Rows) -> float:
    """Return the middle of the widest gap between the means in the middle half of them."""
    values = sorted(mean for row in means for mean in row)
    low, high = len(values) // 4, max(len(values) * 3 // 4, len(values) // 4 + 1)
    gaps = [(b - a, (a + b) / 2) for a, b in itertools.pairwise(values)]
    return max(gaps[low:high], default=(0.0, values[0] / 2))[1]


def margin(means: Rows, threshold: float) -> float:
    """Return how far the threshold is from the nearest mean."""
    return min(abs(mean - threshold) for row in means for mean in row)
