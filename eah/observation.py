"""What `eah.observe` collects: sinks of every head, and what each rule would have chosen.

Axes: B batch, H query heads, K keys, I image tokens of one prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from eah.method import RULES, Choice, Columns, choose
from eah.settings import EAHConfig


class Observation(NamedTuple):
    """Sums of one layer: as they are, as rounded to the query's dtype, and the image, (B, K)."""

    columns: Columns
    rounded: Columns
    image: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LayerObservation:
    """What one layer attended to in the last image prefill, without any change by EAH in it.

    Attributes:
        layer: Layer index, from 0.
        image_tokens: Number of image tokens per batch row.
        sinks: Vision sinks per batch row and head, under the observer's settings.
        density: Sinks divided by image tokens, likewise; 0.0 without an image.
        image_attention: Mean attention to the image per batch row and head: the sum of `means`.
        means: Per batch row, the mean attention that each image token receives in each head, a
            float32 CPU tensor of shape (H, I).
        heads: Per rule, the head that it would have chosen in each batch row, None for none: the
            three named rules with their own thresholds, and "config", the observer's settings.
        skipped: Why nothing was observed in this pass; None if something was.
    """

    layer: int
    image_tokens: tuple[int, ...] = ()
    sinks: tuple[tuple[int, ...], ...] = ()
    density: tuple[tuple[float, ...], ...] = ()
    image_attention: tuple[tuple[float, ...], ...] = ()
    means: tuple[torch.Tensor, ...] = ()
    heads: dict[str, tuple[int | None, ...]] | None = None
    skipped: str | None = None


def describe(layer: int, found: Observation, config: EAHConfig) -> LayerObservation:
    """Return an observation as Python numbers (waits for the device).

    Args:
        layer: Layer index.
        found: What was summed.
        config: Settings that sinks are counted with.
    """
    columns, rounded = (Columns(*(part.cpu() for part in sums)) for sums in found[:2])
    image = found.image.cpu()
    choice = _choice(columns, rounded, image, config)
    tokens = image.sum(-1)  # (B,)
    density = choice.counts / tokens.clamp(min=1)[:, None]
    means = tuple(row[:, mine] for row, mine in zip(columns.means, image, strict=True))
    named = {name: EAHConfig.preset(name.replace("_", "-")) for name in RULES}
    heads = {name: _choice(columns, rounded, image, preset) for name, preset in named.items()}
    return LayerObservation(
        layer,
        tuple(tokens.tolist()),
        tuple(map(tuple, choice.counts.tolist())),
        tuple(map(tuple, density.tolist())),
        tuple(tuple(row.sum(-1).tolist()) for row in means),
        means,
        {name: heads_of(found) for name, found in {**heads, "config": choice}.items()},
    )


def heads_of(choice: Choice) -> tuple[int | None, ...]:
    """Return the chosen head per batch row, None for none."""
    return tuple(None if head < 0 else head for head in choice.head.tolist())


def _choice(columns: Columns, rounded: Columns, image: torch.Tensor, config: EAHConfig) -> Choice:
    return choose(rounded if config.rule == "released_code" else columns, image, config)
