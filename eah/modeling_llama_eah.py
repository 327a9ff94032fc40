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

This file needs nothing but torch, and holds the arithmetic once for everything that uses it. Its
second half lets it stand in the place of transformers' models/llama/modeling_llama.py, the original
beside it as modeling_llama_original.py.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)

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


CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "threshold_unit": ("attention", "uniform"),
    "column_divisor": ("visible-rows", "released"),
    "tie_break": ("lowest-index", "image-attention"),
    "head_zero": ("may-win", "ignored"),
    "batch_rows": ("all", "first"),
    "rounding": ("none", "query-dtype"),
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

    def __post_init__(self) -> None:
        """Check every value once.

        Raises:
            ValueError: Naming the setting, its value and what is allowed.
        """
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}, but it is one of {allowed}")
        if not _is_number(self.threshold):
            raise ValueError(f"threshold={self.threshold!r}, but a finite number is needed")
        if self.threshold_unit == "attention" and not 0.0 < self.threshold < 1.0:
            raise ValueError(
                f"threshold={self.threshold}, but a mean attention weight lies in (0, 1), "
                "exclusive; the paper uses 0.002"
            )
        if self.threshold_unit == "uniform" and not self.threshold > 0.0:
            raise ValueError(
                f"threshold={self.threshold}, but a multiple of uniform attention is above 0; "
                "the preset scale-free uses 1.25"
            )
        if not _is_number(self.min_density) or not 0.0 <= self.min_density <= 1.0:
            raise ValueError(f"min_density={self.min_density!r}, but it is a share in [0, 1]")
        if self.head is not None and (not is_int(self.head) or self.head < 0):
            raise ValueError(
                f"head={self.head!r}, but a head is an index from 0, or None for the densest one"
            )


def checked_layers(layers: object) -> tuple[int, ...]:
    """Return layer indices in order.

    Raises:
        ValueError: If they are no indices, or one stands twice.
    """
    indices = tuple(layers) if isinstance(layers, (tuple, list)) else ()
    if not indices or not all(is_int(layer) and layer >= 0 for layer in indices):
        raise ValueError(
            f"layers={layers!r}, but layers is a tuple of indices from 0, such as (1,)"
        )
    if len(set(indices)) < len(indices):
        raise ValueError(f"layers={indices} names a layer twice; name each once")
    return tuple(sorted(indices))


def checked_span(span: object) -> tuple[int, int]:
    """Return a span [start, stop) of image tokens as a pair of ints.

    Raises:
        ValueError: If it is empty, negative or not a pair.
    """
    pair = tuple(span) if isinstance(span, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(is_int, pair)) or not 0 <= pair[0] < pair[1]:
        raise ValueError(f"image span {span!r}, but a span is (start, stop) with 0 <= start < stop")
    return pair


def is_int(value: object) -> bool:
    """Tell whether a value is an integer; True is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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

    def of_rows(self, start: int, stop: int) -> Visibility:
        """Return the visibility of query rows [start, stop) alone."""
        mask = None if self.mask is None else self.mask[:, :, start:stop]
        return Visibility(self.offset + start, mask, self.valid, self.window)

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
    sums = _no_sums(batch, heads, num_keys, device)
    for start, stop in _blocks(batch * heads * num_keys, queries, device):
        keys = visibility.stop_key(stop, num_keys)
        visible = visibility.visible(start, stop, keys, device)  # (B or 1, q, keys)
        # Grouped heads are folded into rows, so that keys are not repeated per head.
        folded = (query[:, :, start:stop].float() * scaling).reshape(batch, kv_heads, -1, size)
        with _no_autocast(device):
            scores = torch.matmul(folded, key[:, :, :keys].transpose(2, 3))  # (B, N, H/N * q, keys)
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
        counted = tokens[:, None, start:stop]  # (B or 1, 1, q)
        _add_rows(sums, weights, visible, counted, own=visibility.offset + start)
    return sums


@torch.no_grad()
def column_sums_of(
    weights: torch.Tensor, visibility: Visibility, *, rounding: torch.dtype | None = None
) -> ColumnSums:
    """Sum attention weights that exist already down the columns, as `column_sums` does.

    Args:
        weights: Softmax output, shape (B, H, Q, K).
        visibility: Which keys the rows see.
        rounding: Weights are rounded to this dtype before they are summed; None for float32.
    """
    batch, heads, queries, num_keys = weights.shape
    tokens = visibility.token_rows(queries, weights.device).float()  # (B or 1, Q)
    sums = _no_sums(batch, heads, num_keys, weights.device)
    for start, stop in _blocks(batch * heads * num_keys, queries, weights.device):
        # A copy: adding the rows overwrites them, and the model goes on with these weights.
        block = weights[:, :, start:stop].to(rounding or torch.float32).to(torch.float32, copy=True)
        visible = visibility.visible(start, stop, num_keys, weights.device)
        counted = tokens[:, None, start:stop]  # (B or 1, 1, q)
        _add_rows(sums, block, visible, counted, own=visibility.offset + start)
    return sums


def _no_sums(batch: int, heads: int, num_keys: int, device: torch.device) -> ColumnSums:
    """Return sums over no rows."""
    return ColumnSums(
        torch.zeros(batch, heads, num_keys, device=device),
        torch.zeros(batch, num_keys, device=device),
        torch.zeros(batch, num_keys, device=device),
    )


def _add_rows(
    sums: ColumnSums,
    weights: torch.Tensor,
    visible: torch.Tensor,
    counted: torch.Tensor,
    *,
    own: int,
) -> None:
    """Add a block of rows, each row's own column left out; `weights` is overwritten there.

    Args:
        sums: Added to.
        weights: Attention weights, shape (B, H, q, keys), float32.
        visible: What the rows see, shape (B or 1, q, keys) bool.
        counted: 1 for rows that are tokens, 0 for padding, shape (B or 1, 1, q).
        own: Column of the first row's own key.
    """
    keys = weights.shape[-1]
    weights.diagonal(own, dim1=2, dim2=3).zero_()
    seen = visible.float()
    share = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    with _no_autocast(weights.device):
        # (B or 1, 1, 1, q) @ (B, H, q, keys) -> (B, H, 1, keys)
        sums.attention[..., :keys] += torch.matmul(counted[:, None], weights).squeeze(2)
        for total, part in ((sums.rows, seen), (sums.uniform, share)):
            part.diagonal(own, dim1=1, dim2=2).zero_()
            total[:, :keys] += torch.matmul(counted, part).squeeze(1)  # (B or 1, keys)


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which matrix products keep float32, whatever the model runs in."""
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _blocks(row_size: int, queries: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield blocks [start, stop) of rows that fit a CPU's cache, or that keep a GPU busy."""
    budget = CPU_BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    block = min(queries, max(MIN_BLOCK_ROWS, budget // (4 * row_size)))
    for start in range(0, queries, block):
        yield start, min(start + block, queries)


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


# The drop-in: this file as transformers/models/llama/modeling_llama.py ---------------------------

VERSION: Final = "0.1.0"
DEFAULT_SPAN: Final = (34, 610)  # LLaVA-1.5's image tokens in the prompt of OPERA and EAH
ORIGINAL_SUFFIX: Final = "_original"
SHARING_PREFIX: Final = "EAH"
SOFTMAX: Final = (functional.softmax, torch.softmax, torch.Tensor.softmax)
MAPLESS_KERNELS: Final = ("flash", "flex", "paged")  # no torch functions, so none to intercept

# transformers from 4.48 on searches the text of a folder's files for what they define, and of two
# files that define a name it takes the one whose group of requirements comes later, or that the
# file system happens to list later. So that it never takes the original, whose names are in the
# group "torch", ours stand in a group that follows it, in a form that the search understands.
LAZY_EXPORTS: Final[str] = """
@export(backends=("torch",))
class SharingAttention(
@export(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@export(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@export(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@export(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@export(backends=("torch", "tokenizers"))
class LlamaModel(
@export(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
@requires(backends=("torch",))
class SharingAttention(
@requires(backends=("torch", "tokenizers"))
class LlamaForCausalLM(
@requires(backends=("torch", "tokenizers"))
class LlamaForQuestionAnswering(
@requires(backends=("torch", "tokenizers"))
class LlamaForSequenceClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaForTokenClassification(
@requires(backends=("torch", "tokenizers"))
class LlamaModel(
@requires(backends=("torch", "tokenizers"))
class LlamaPreTrainedModel(
"""


@dataclass(frozen=True)
class DropInSettings:
    """Settings of the drop-in.

    Attributes:
        layers: Target layers, counted from 0.
        image_span: Image tokens [start, stop) of a prompt, its padding not counted.
        rule: How sinks are counted.
        enabled: False leaves every model as it was.
        layers_named: Whether the environment names the layers, or a preset; a default that a small
            model does not have is left out with a warning, a named one is an error.
    """

    layers: tuple[int, ...]
    image_span: tuple[int, int]
    rule: SinkRule
    enabled: bool = True
    layers_named: bool = False

    def __str__(self) -> str:
        """Return the settings in one line."""
        if not self.enabled:
            return "off (EAH_DISABLE)"
        head = "densest head" if self.rule.head is None else f"head {self.rule.head}"
        start, stop = self.image_span
        return (
            f"layers {', '.join(map(str, self.layers))}; {head}; threshold {self.rule.threshold} "
            f"({self.rule.threshold_unit}); image tokens {start}:{stop}"
        )


def settings_from_environment(environment: Mapping[str, str]) -> DropInSettings:
    """Read the drop-in's settings.

    Variables: EAH_PRESET, EAH_LAYERS (as `1` or `1,2`), EAH_THRESHOLD, EAH_HEAD (`auto` or an
    index), EAH_IMAGE_SPAN (`start:stop`), EAH_DISABLE; the paper's release calls three of them
    LAYER_NUM, THRES and HEAD_NUM.

    Raises:
        ValueError: Naming the variable, its value and what is allowed.
    """
    given = {
        ours: (name, environment[name].strip())
        for ours, names in VARIABLES.items()
        for name in reversed(names)
        if environment.get(name, "").strip()
    }
    preset = given.get("preset", ("", "paper"))[1]
    if preset not in PRESETS:
        raise ValueError(f"EAH_PRESET={preset!r}, but it is one of {', '.join(PRESETS)}")
    values = dict(PRESETS[preset])
    for ours, (name, text) in given.items():
        if ours in READERS:
            try:
                values[ours] = READERS[ours][0](text)
                checked_layers(values["layers"])
                checked_span(values.get("image_span", DEFAULT_SPAN))
            except ValueError as error:
                raise ValueError(
                    f"{name}={text!r} can't be used: {error}; write {READERS[ours][1]}"
                ) from error
    if "threshold" in given:
        values["threshold_unit"] = "attention"
    layers, span = values.pop("layers"), values.pop("image_span", DEFAULT_SPAN)
    try:
        rule = SinkRule(**values)
    except ValueError as error:
        raise ValueError(f"EAH settings from the environment: {error}") from error
    disabled = given.get("disable", ("", "0"))[1].lower() not in ("0", "false", "no", "off")
    return DropInSettings(
        checked_layers(layers),
        checked_span(span),
        rule,
        not disabled,
        "layers" in given or "preset" in given,
    )


VARIABLES: Final = {
    "preset": ("EAH_PRESET",),
    "layers": ("EAH_LAYERS", "LAYER_NUM"),
    "threshold": ("EAH_THRESHOLD", "THRES"),
    "head": ("EAH_HEAD", "HEAD_NUM"),
    "image_span": ("EAH_IMAGE_SPAN",),
    "disable": ("EAH_DISABLE",),
}
READERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "layers": (lambda text: _integers(text, ","), "indices from 0, such as 1 or 1,2"),
    "threshold": (float, "a number, such as 0.002"),
    "head": (lambda text: None if text == "auto" else int(text), "auto, or an index from 0"),
    "image_span": (lambda text: _integers(text, ":"), "start:stop, such as 34:610"),
}


def _integers(text: str, separator: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(separator))


_given: ContextVar[Any] = ContextVar("eah_image_tokens", default=None)


@contextmanager
def image_tokens(tokens: tuple[int, int] | torch.Tensor) -> Iterator[None]:
    """Say which tokens of the prompts in this block are image tokens.

    Args:
        tokens: A span [start, stop) of every prompt, its padding not counted, or a mask of shape
            (B, S) bool over the padded prompts.
    Raises:
        ValueError: If it is neither.
    """
    if isinstance(tokens, torch.Tensor):
        if tokens.dim() != 2:
            raise ValueError(f"an image mask has shape (B, S), not {tuple(tokens.shape)}")
        tokens = tokens.bool()
    else:
        tokens = checked_span(tokens)
    token = _given.set(tokens)
    try:
        yield
    finally:
        _given.reset(token)


@dataclass
class _Prefill:
    """A prompt that is under way in a patched model.

    Attributes:
        cached: Tokens in the KV cache before it.
        image: Image tokens among cache and prompt, shape (B, cached + Q) bool.
        valid: True at tokens, False at padding, likewise; None if nobody said.
    """

    cached: int
    image: torch.Tensor
    valid: torch.Tensor | None


@dataclass
class _Patched:
    """What a patched model shares with its target attention modules."""

    settings: DropInSettings
    prefill: _Prefill | None = None
    warned: bool = False

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Read a forward pass of the model from its arguments."""
        self.prefill = None
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = embeds if ids is None else ids
        if tokens is None or tokens.shape[1] < 2:
            return
        cached = _cached_tokens(arguments.get("past_key_values"))
        keys = cached + tokens.shape[1]
        mask = arguments.get("attention_mask")
        valid = None
        if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape[1] >= keys:
            valid = mask[:, :keys].bool().to(tokens.device)
        image = self._image(tokens.shape[0], keys, valid, tokens.device)
        # One look from the host per prompt; decode steps need none.
        if bool(image[:, cached:].any()):
            self.prefill = _Prefill(cached, image, valid)

    def _image(
        self, batch: int, keys: int, valid: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """Return the image tokens among the keys, shape (B, K) bool; none in too short a prompt."""
        given = _given.get()
        given = self.settings.image_span if given is None else given
        if isinstance(given, torch.Tensor):
            if batch % given.shape[0]:
                raise ValueError(
                    f"image mask of {given.shape[0]} rows for a batch of {batch}; give one row per "
                    "prompt (beams repeat them)"
                )
            given = given.to(device).repeat_interleave(batch // given.shape[0], dim=0)
            image = torch.zeros(batch, keys, dtype=torch.bool, device=device)
            width = min(keys, given.shape[1])
            image[:, :width] = given[:, :width]
            return image
        start, stop = given
        pads = torch.zeros(batch, 1, dtype=torch.long, device=device)
        length = torch.full_like(pads, keys)
        if valid is not None:
            pads = (~valid).long().cumprod(-1).sum(-1, keepdim=True)  # before the first token
            length = valid.sum(-1, keepdim=True)
        column = torch.arange(keys, device=device)[None] - pads
        fits = length >= stop
        if not self.warned and not bool(fits.all()):
            self.warned = True
            logger.warning(
                "EAH: a prompt of %d tokens is too short for the image tokens %d:%d, so it runs "
                "without EAH; EAH_IMAGE_SPAN or image_tokens() says where they are",
                int(length.min()),
                start,
                stop,
            )
        return (column >= start) & (column < stop) & fits


class SharingAttention:
    """What the class of a target layer's attention has before the original's: one head's map."""

    eah_state: _Patched
    eah_layer: int

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the original's attention, at image prefill with the densest head's map for all."""
        forward = super().forward  # type: ignore[misc]  # the original's class follows
        prefill = self.eah_state.prefill
        if prefill is None or hidden_states.shape[1] < 2:
            return forward(hidden_states, *args, **kwargs)
        sharing = HeadSharing(self.eah_state.settings.rule, prefill, hidden_states.dtype)
        with sharing:
            output = forward(hidden_states, *args, **kwargs)
        if not sharing.done:
            raise RuntimeError(
                f"EAH saw no softmax and no scaled_dot_product_attention in layer "
                f"{self.eah_layer}: its attention kernel can't be shared; load the model with "
                "attn_implementation='eager' or 'sdpa', or set EAH_DISABLE=1"
            )
        return output


class HeadSharing(TorchFunctionMode):
    """While active, gives all heads of one attention call the densest head's map.

    With `scaled_dot_product_attention` all heads get that head's query and key; with a softmax over
    scores they get its output.
    """

    def __init__(self, rule: SinkRule, prefill: _Prefill, dtype: torch.dtype) -> None:
        """Take the rule, the prompt, and the dtype that the model computes in."""
        super().__init__()
        self.rule, self.prefill, self.dtype = rule, prefill, dtype
        self.done = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Intercept the two functions; all others run as they are."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        output = func(*args, **kwargs)
        scores = args[0] if args else kwargs.get("input")
        if func in SOFTMAX and isinstance(scores, torch.Tensor) and scores.dim() == 4:
            return self._shared(scores, output)
        return output

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run the kernel with one head's query and key."""
        if attn_mask is None and not is_causal:
            raise RuntimeError("EAH: the target layer's attention is not causal; choose another")
        scale = kwargs.get("scale")
        choice = densest_head(
            query,
            key,
            self._visibility(attn_mask),
            self._columns(key.shape[2]),
            self.rule,
            scaling=query.shape[-1] ** -0.5 if scale is None else scale,
        )
        self.done = True
        query, key = share_head(query, key, choice.head)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, **kwargs
        )

    def _shared(self, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return softmax output in which every head has the densest head's map."""
        visible = scores[:, :1].detach() > torch.finfo(scores.dtype).min / 2
        rounding = self.dtype if self.rule.rounding == "query-dtype" else None
        sums = column_sums_of(weights.detach(), self._visibility(visible), rounding=rounding)
        choice = choose_head(sums, self._columns(weights.shape[3]), self.rule)
        self.done = True
        rows = torch.arange(weights.shape[0], device=weights.device)
        shared = weights[rows, choice.head.clamp(min=0)][:, None]  # (B, 1, Q, K)
        return torch.where((choice.head != NO_HEAD)[:, None, None, None], shared, weights)

    def _visibility(self, mask: torch.Tensor | None) -> Visibility:
        if mask is not None and (mask.dim() != 4 or mask.shape[1] != 1):
            raise RuntimeError(
                f"EAH: the target layer's mask has shape {tuple(mask.shape)}, but one mask for all "
                "heads is needed, (B, 1, Q, K)"
            )
        return Visibility(self.prefill.cached, mask=mask, valid=self.prefill.valid)

    def _columns(self, keys: int) -> torch.Tensor:
        """Return the image columns among keys that may be more than the tokens (static cache)."""
        image = self.prefill.image
        columns = image.new_zeros(image.shape[0], keys)
        columns[:, : image.shape[1]] = image
        return columns


def _cached_tokens(past: Any) -> int:
    """Return the number of tokens in a KV cache, of tensors or of transformers' classes."""
    if past is None:
        return 0
    if isinstance(past, (tuple, list)):
        return int(past[0][0].shape[2]) if past and past[0] is not None else 0
    return int(past.get_seq_length())


def replace_module(name: str, path: str) -> None:
    """Load the original file under this module's name, and patch its model class.

    The module that everybody gets is the original's own, so that its names, its sources and its
    pickles are what they were.

    Raises:
        ImportError: If the original is not beside this file, or defines no model to patch.
    """
    original = Path(path).with_name(Path(path).stem + ORIGINAL_SUFFIX + ".py")
    alias = name + ORIGINAL_SUFFIX
    ours = sys.modules[name]
    module = sys.modules.get(alias)
    if module is None:
        if not original.is_file():
            raise ImportError(
                f"{path} is EAH's and needs the original beside it as {original.name}; put it "
                "there, or reinstall transformers"
            )
        spec = importlib.util.spec_from_file_location(name, original)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = sys.modules[alias] = module
        try:
            with _sources_found_as(str(original), path):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules[name] = ours
            del sys.modules[alias]
            raise
    sys.modules[name] = module
    models = [
        value
        for key, value in vars(module).items()
        if key.endswith("Model")
        and not key.endswith("PreTrainedModel")
        and isinstance(value, type)
        and value.__module__ == module.__name__
    ]
    if len(models) != 1:
        raise ImportError(
            f"{original.name} defines {len(models)} decoder models, but EAH patches a file with one"
        )
    _patch_model(models[0], module)
    # torch.compile looks our functions' globals up by the name of their module.
    ours.__name__ = name + "_eah"
    sys.modules[ours.__name__] = ours
    # Under these names pickles find what a patched model holds, and users find `image_tokens`.
    for key, value in vars(ours).items():
        if getattr(value, "__module__", None) == name:
            vars(module).setdefault(key, value)
    for key, value in list(vars(module).items()):
        if isinstance(value, type) and issubclass(value, nn.Module) and "Attention" in key:
            shared = type(SHARING_PREFIX + key, (SharingAttention, value), {"__module__": name})
            setattr(module, shared.__name__, shared)


@contextmanager
def _sources_found_as(original: str, path: str) -> Iterator[None]:
    """Say that the original's functions are in the file that it was.

    transformers 4.52 and later write a model's docstrings by the name of that file, and complain on
    standard output about one that they do not know.
    """
    find = inspect.getsourcefile

    def getsourcefile(thing: Any) -> str | None:
        found = find(thing)
        return path if found == original else found

    inspect.getsourcefile = getsourcefile  # type: ignore[assignment]  # the same, less strictly typed
    try:
        yield
    finally:
        inspect.getsourcefile = find


def _patch_model(model: Any, module: ModuleType) -> None:
    """Make a model class patch its target layers when it is built, and tell them its prompts."""
    build, run = model.__init__, model.forward
    names = tuple(inspect.signature(run).parameters)[1:]

    @functools.wraps(build)
    def patched_init(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        settings = settings_from_environment(os.environ)
        _announce(settings)
        if settings.enabled:
            self.eah_state = _Patched(settings)
            for layer in _layers_of(self, settings):
                _share_in(self.layers[layer], self.eah_state, layer, module)

    @functools.wraps(run)
    def patched_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = getattr(self, "eah_state", None)
        if state is not None:
            state.begin({**dict(zip(names, args)), **kwargs})  # noqa: B905  # OPERA's Python is 3.9
        return run(self, *args, **kwargs)

    model.__init__, model.forward = patched_init, patched_forward


@functools.cache
def _announce(settings: DropInSettings) -> None:
    """Show the settings once."""
    logger.info("EAH %s: %s", VERSION, settings)


def _layers_of(model: Any, settings: DropInSettings) -> list[int]:
    """Return the target layers that a model has.

    Raises:
        ValueError: If the environment names one that it does not have.
    """
    count = len(model.layers)
    missing = [layer for layer in settings.layers if layer >= count]
    if missing and settings.layers_named:
        raise ValueError(
            f"EAH layers {', '.join(map(str, settings.layers))}, but {type(model).__name__} has "
            f"{count} decoder layers (0..{count - 1}); set EAH_LAYERS, or EAH_DISABLE=1"
        )
    if missing:
        logger.warning("EAH: %s has no layer %s, so it runs without", type(model).__name__, missing)
    return [layer for layer in settings.layers if layer < count]


def _share_in(layer: Any, state: _Patched, index: int, module: ModuleType) -> None:
    """Give a decoder layer's attention a class that shares the densest head's map.

    Raises:
        ValueError: If its kernel is known to be one that can't be shared, or the head not to exist.
    """
    attention = layer.self_attn
    base = type(attention)
    config = getattr(attention, "config", None)
    kernel = str(getattr(config, "_attn_implementation", "")) + base.__name__.lower()
    if any(name in kernel for name in MAPLESS_KERNELS):
        raise ValueError(
            f"EAH can't share a head in layer {index}: its attention is "
            f"{getattr(config, '_attn_implementation', base.__name__)}; load the model with "
            "attn_implementation='eager' or 'sdpa', or set EAH_DISABLE=1"
        )
    heads = getattr(config, "num_attention_heads", None)
    head = state.settings.rule.head
    if head is not None and heads is not None and head >= heads:
        raise ValueError(f"EAH_HEAD={head}, but layer {index} has {heads} heads (0..{heads - 1})")
    sharing = vars(module).get(SHARING_PREFIX + base.__name__)
    if sharing is None:
        raise ValueError(
            f"EAH does not know {base.__name__} of layer {index}, which {module.__name__} does not "
            "define; set other EAH_LAYERS, or EAH_DISABLE=1"
        )
    attention.__class__ = sharing
    attention.eah_state, attention.eah_layer = state, index


if __name__.startswith("transformers."):
    replace_module(__name__, __file__)
