"""What a family's model has to compute with EAH, by plain loops over plain eager attention.

Written from the description of the method and not from the package: the target layer's map is taken
from the model's own eager attention function, counted in Python, and given to every head there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import PreTrainedModel

from tests.eah import oracle

HIDDEN = -50.0  # a mask's bias at or below this hides the key


@dataclass(frozen=True)
class Expected:
    """What EAH has to find and compute.

    Attributes:
        threshold: Far from every column mean, so that rounding can't flip a sink.
        margin: How far.
        counts: Sinks per batch row and head.
        head: Densest head per batch row, None where no head has a sink.
        image_tokens: Number of image tokens per batch row.
        plain: Logits without EAH.
        logits: Logits with it.
    """

    threshold: float
    margin: float
    counts: tuple[tuple[int, ...], ...]
    head: tuple[int | None, ...]
    image_tokens: tuple[int, ...]
    plain: torch.Tensor
    logits: torch.Tensor


@dataclass
class Seen:
    """One layer's attention: map (B, H, Q, K) and what each row sees, (B, Q, K) bool."""

    weights: torch.Tensor
    visible: torch.Tensor


def expect(
    model: PreTrainedModel, inputs: dict[str, Any], image: torch.Tensor, layer: int
) -> Expected:
    """Return what EAH in a layer has to find and compute.

    Args:
        model: A model with eager attention.
        inputs: Arguments of its forward.
        image: Image tokens of the prompt, shape (B, S) bool.
        layer: Target layer.
    """
    module = attention_module(model, layer)
    seen: list[Seen] = []
    with wrapped(module, lambda output, value, mask: _record(seen, output, mask)):
        plain = run(model, inputs)
    assert len(seen) == 1, f"layer {layer} ran {len(seen)} times"
    tokens = inputs.get("attention_mask", torch.ones_like(image, dtype=torch.long)).bool()
    means = [column_means(seen[0], b, tokens, image) for b in range(len(image))]
    everything = [row for rows in means for row in rows]
    threshold = oracle.threshold_with_margin(everything)
    counts = [oracle.sink_counts(rows, threshold) for rows in means]
    heads = [oracle.densest(row, int(image[b].sum())) for b, row in enumerate(counts)]
    with wrapped(module, lambda output, value, mask: _share(output, value, heads)):
        shared = run(model, inputs)
    return Expected(
        threshold,
        oracle.margin(everything, threshold),
        tuple(tuple(row) for row in counts),
        tuple(None if head < 0 else head for head in heads),
        tuple(int(count) for count in image.sum(1)),
        plain,
        shared,
    )


@torch.no_grad()
def run(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the logits of a prompt; the model may not keep or change the arguments."""
    copies = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    return model(**copies, use_cache=False).logits


def attention_module(model: PreTrainedModel, layer: int) -> nn.Module:
    """Return the decoder's self-attention of a layer: the one with the decoder's config."""
    config = type(model.config.get_text_config(decoder=True))
    found = [
        module
        for module in model.modules()
        if module.__dict__.get("layer_idx") == layer
        and type(module.__dict__.get("config")) is config
        and type(module).__name__.endswith("Attention")
    ]
    assert len(found) == 1, f"{len(found)} attention modules of layer {layer}"
    return found[0]


@contextmanager
def wrapped(module: nn.Module, after: Callable[..., Any]) -> Iterator[None]:
    """Pass the eager attention of one module, and of no other, through `after`."""
    names = inspect.unwrap(type(module).forward).__globals__
    eager = names["eager_attention_forward"]
    signature = inspect.signature(eager)

    def function(*args: Any, **kwargs: Any) -> Any:
        output = eager(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        if given["module"] is not module:
            return output
        return after(output, given["value"], given["attention_mask"])

    with patch.dict(names, {"eager_attention_forward": function}):
        yield


def _record(seen: list[Seen], output: Any, mask: torch.Tensor | None) -> Any:
    weights = output[1]
    batch, _, queries, keys = weights.shape
    if mask is None:
        visible = torch.ones(batch, queries, keys, dtype=torch.bool)
    else:
        bias = mask[:, 0, :, :keys].expand(batch, queries, keys)
        visible = bias if mask.dtype == torch.bool else bias > HIDDEN
    seen.append(Seen(weights.detach().clone(), visible))
    return output


def _share(output: Any, value: torch.Tensor, heads: list[int]) -> Any:
    """Let every head of a batch row use the densest head's map with its own values."""
    weights = output[1].clone()
    for b, head in enumerate(heads):
        if head >= 0:
            weights[b] = weights[b, head].clone()
    own = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
    return (weights @ own).transpose(1, 2).contiguous(), weights


def column_means(
    seen: Seen, b: int, tokens: torch.Tensor, image: torch.Tensor
) -> list[list[float]]:
    """Return [h][i]: the mean attention that each image column of a batch row receives."""
    weights, visible = seen.weights[b].tolist(), seen.visible[b].tolist()
    rows, columns = tokens[b].tolist(), image[b].tolist()
    means = []
    for head in weights:
        of_head = []
        for y, is_image in enumerate(columns):
            if not is_image:
                continue
            total, count = 0.0, 0
            for x, is_token in enumerate(rows):
                if is_token and x != y and visible[x][y]:
                    total += head[x][y]
                    count += 1
            of_head.append(total / count if count else 0.0)
        means.append(of_head)
    return means
