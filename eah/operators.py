"""A layer's steps as torch operators: count, choose, share; by Triton kernels where they run.

For torch.compile, each step is one opaque operator (`eah::image_sums`, ...), so that it neither
breaks the graph nor causes recompilation. They are registered with `torch.library.Library`, because
calling a `custom_op` takes three times as long, and the GPU waits for the host here.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch

from eah import method
from eah.method import Choice, Columns
from eah.triton_host import LEAST_D, column_sums, head_kernels, is_usable, with_copy
from eah.visibility import Visibility

LIBRARY: Final = torch.library.Library("eah", "FRAGMENT")  # type: ignore[no-untyped-call]
TAGS: Final = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
SCHEMAS: Final = {
    "image_sums": "(Tensor query, Tensor key, Tensor image, Tensor? mask, Tensor? valid, "
    "SymInt offset, SymInt? window, float scaling, ScalarType? rounding) "
    "-> (Tensor, Tensor, Tensor)",
    "choose_head": "(Tensor attention, Tensor uniform, Tensor rows, Tensor image, str rule, "
    "float threshold, str? unit, int? head, float min_density) -> (Tensor, Tensor)",
    "share_head": "(Tensor query, Tensor key, Tensor head) -> (Tensor, Tensor)",
}


class Settings(NamedTuple):
    """Settings of an `EAHConfig` that choosing a head uses."""

    rule: str
    rule_arguments: dict[str, Any]
    head: int | None
    min_density: float
    receivers: str = "all"


def image_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    *,
    scaling: float,
    image: torch.Tensor,
    rounding: torch.dtype | None = None,
) -> Columns:
    """Sum attention weights down the image columns (steps 1 and 2).

    Arguments as in `triton_host.column_sums`. Columns without an image may be summed or 0.
    """
    mask, valid, offset, window = (
        visibility.mask,
        visibility.valid,
        visibility.offset,
        visibility.window,
    )
    if query.requires_grad or key.requires_grad:
        query, key = query.detach(), key.detach()
    return Columns(*_image_sums(query, key, image, mask, valid, offset, window, scaling, rounding))


def choose_head(columns: Columns, image: torch.Tensor, config: Any) -> Choice:
    """Apply the rule of an `EAHConfig`, then its head, min_density and receivers (step 4)."""
    if callable(config.rule) or config.receivers != "all":
        return method.choose(columns, image, config)
    arguments = config.rule_arguments
    unit, density = arguments.get("threshold_unit"), float(config.min_density)
    threshold = float(arguments["threshold"])
    return Choice(
        *_choose_head(*columns, image, config.rule, threshold, unit, config.head, density)
    )


def share_head(
    query: torch.Tensor, key: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give all heads the query and key of one head; a batch row with head -1 keeps its own."""
    has_gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    if query.is_cuda and not has_gradient:
        query, key = _share_head(query, key, head)
        return query, key
    if torch.compiler.is_compiling() or query.device.type != "cpu" or bool((head < 0).any()):
        return method.share_head(query, key, head)
    # On a CPU, reading the heads costs nothing, and equal heads need no copies.
    row, group = torch.arange(len(head)), query.shape[1] // key.shape[1]
    shared_key = key[row, head // group][:, None].expand(-1, key.shape[1], -1, -1)
    return query[row, head][:, None].expand_as(query), shared_key


def _run_image_sums(
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


def _fake_image_sums(query: torch.Tensor, key: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    (batch, heads), keys = query.shape[:2], key.shape[2]
    shapes = (batch, heads, keys), (batch, keys), (batch, keys)
    return tuple(query.new_empty(shape, dtype=torch.float32) for shape in shapes)


def _run_choose_head(
    attention: torch.Tensor,
    uniform: torch.Tensor,
    rows: torch.Tensor,
    image: torch.Tensor,
    rule: str,
    threshold: float,
    unit: str | None,
    head: int | None,
    min_density: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    columns = Columns(attention, uniform, rows)
    if is_usable(attention, LEAST_D):  # one trial, however many keys there are
        found = head_kernels().choose(columns, image, rule, threshold, unit, head, min_density)
    else:
        arguments: dict[str, Any] = {"threshold": threshold}
        arguments |= {} if unit is None else {"threshold_unit": unit}
        found = method.choose(columns, image, Settings(rule, arguments, head, min_density))
    return found.head, found.counts


def _fake_choose_head(attention: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    counts = attention.new_empty(attention.shape[:2], dtype=torch.int64)
    return counts.new_empty(counts.shape[:1]), counts


def _run_share_head(
    query: torch.Tensor, key: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if is_usable(query):
        shared: tuple[torch.Tensor, torch.Tensor] = head_kernels().share(query, key, head)
        return shared
    goals = _fake_share_head(query, key, head)
    for goal, found in zip(goals, method.share_head(query, key, head), strict=True):
        goal.copy_(found)
    return goals


def _fake_share_head(
    query: torch.Tensor, key: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return with_copy(query)[1], with_copy(key)[1]


def _register(name: str, run: Any, like: Any) -> Any:
    LIBRARY.define(name + SCHEMAS[name], tags=TAGS)  # type: ignore[no-untyped-call]
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"eah::{name}", like, lib=LIBRARY)
    return getattr(torch.ops.eah, name).default


_image_sums: Final = _register("image_sums", _run_image_sums, _fake_image_sums)
_choose_head: Final = _register("choose_head", _run_choose_head, _fake_choose_head)
_share_head: Final = _register("share_head", _run_share_head, _fake_share_head)
