"""Attention inputs for the oracle and the package: how they are made, and how the mask is told."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from eah.method import Choice, choose, column_sums
from eah.settings import EAHConfig
from eah.visibility import Visibility
from tests.eah import oracle
from tests.eah.oracle import Prefill

WAYS = ("causal", "bool mask", "additive mask", "additive mask and padding", "wide mask")


def make_case(
    batch: int = 1,
    heads: int = 4,
    kv_heads: int = 4,
    queries: int = 10,
    cached: int = 0,
    *,
    image: tuple[int, int] = (2, 7),
    padding: tuple[int, ...] = (),
    window: int | None = None,
    size: int = 8,
) -> Prefill:
    """Return random inputs; the image span counts from the first token after the padding."""
    keys = cached + queries
    pad = list(padding) or [0] * batch
    return Prefill(
        query=1.5 * torch.randn(batch, heads, queries, size),
        key=1.5 * torch.randn(batch, kv_heads, keys, size),
        value=torch.randn(batch, kv_heads, keys, size),
        image=[
            [pad[b] + image[0] <= y < pad[b] + image[1] for y in range(keys)] for b in range(batch)
        ],
        padding=pad,
        offset=cached,
        window=window,
        scaling=size**-0.5,
    )


def plant_sinks(case: Prefill, head: int) -> Prefill:
    """Make one head put nearly all its attention on the image tokens, alike on each."""
    _, heads, _, _ = case.shape
    kv_head = head // (heads // case.key.shape[1])
    image = torch.tensor(case.image)
    case.key[:, kv_head, :, 0] = torch.where(image, 4.0, -4.0)
    case.key[:, kv_head, :, 1:] *= 0.1
    case.query[:, head, :, 0] = 6.0
    case.query[:, head, :, 1:] *= 0.1
    return case


def seen_keys(case: Prefill) -> torch.Tensor:
    """Return the bool mask (B, 1, Q, K) of a case."""
    batch, _, queries, keys = case.shape
    rows = [
        [[[case.sees(b, x, y) for y in range(keys)] for x in range(queries)]] for b in range(batch)
    ]
    return torch.tensor(rows)


def token_mask(case: Prefill) -> torch.Tensor:
    """Return the padding mask (B, K) of a case."""
    batch, _, _, keys = case.shape
    return torch.tensor([[case.is_token(b, y) for y in range(keys)] for b in range(batch)])


def told(case: Prefill, way: str) -> Visibility:
    """Return the visibility of a case, told in one of the ways in which models tell kernels."""
    seen, valid = seen_keys(case), token_mask(case)
    if way == "causal":
        padded = any(case.padding)
        return Visibility(case.offset, valid=valid if padded else None, window=case.window)
    if way == "bool mask":
        return Visibility(case.offset, mask=seen)
    if way == "wide mask":
        return Visibility(case.offset, mask=F.pad(seen, (0, 3), value=True))
    additive = torch.zeros(seen.shape) if case.bias is None else torch.tensor([[case.bias]])
    additive = additive.masked_fill(~seen, torch.finfo(torch.float32).min)
    if way == "additive mask":
        return Visibility(case.offset, mask=additive)
    assert way == "additive mask and padding", way
    # As some versions of transformers do, so that no row of a kernel is empty.
    sees_nothing = ~seen.any(-1, keepdim=True)
    return Visibility(case.offset, mask=additive.masked_fill(sees_nothing, 0.0), valid=valid)


def choice_of(case: Prefill, visibility: Visibility, config: EAHConfig) -> Choice:
    """Return what a layer's settings make of a case: steps 1 to 4."""
    rounding = case.query.dtype if config.rule == "released_code" else None
    columns = column_sums(case.query, case.key, visibility, scaling=case.scaling, rounding=rounding)
    return choose(columns, torch.tensor(case.image), config)


def token_rows(case: Prefill, output: torch.Tensor, b: int) -> torch.Tensor:
    """Return an output (H, Q, D) without its padding rows, which nothing reads."""
    return output[:, max(0, case.padding[b] - case.offset) :]


def all_means(case: Prefill, *, relative: bool = False) -> list[list[list[float]]]:
    """Return the oracle's means of image columns as [b][h][i]."""
    return [oracle.image_means(case, b, relative=relative) for b in range(case.shape[0])]
