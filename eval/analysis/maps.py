"""Numbers by layer and head: how dense heads are in vision sinks, and where they look at the image.

Axes: T thresholds, G least densities, L layers, H heads, N prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.stats.intervals import Array


@dataclass(frozen=True, slots=True)
class HeadMap:
    """What one model's heads do, as means over prompts; nan where a layer has no such head.

    Attributes:
        model: The model, as tables call it.
        layers: Layer indices, (L,).
        thresholds: Thresholds that sinks are counted with, (T,); the first is EAH's.
        unit: Their unit, "attention" or "uniform".
        gammas: Least densities of a dense head, (G,).
        pictures: Number of pictures.
        prompts: Number of prompts.
        image_tokens: Mean number of image tokens.
        density: Share of the image tokens that are sinks, (T, L, H).
        attention: Attention to the image, (L, H).
        densest: Share of prompts in which a head is the densest of its layer, (T, L, H).
        dense_share: Share of a layer's heads whose density is at least gamma, (T, G, L).
        saturated: Share of prompts in which every image token is a sink in every head, (T, L).
    """

    model: str
    layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    unit: str
    gammas: tuple[float, ...]
    pictures: int
    prompts: int
    image_tokens: float
    density: Array
    attention: Array
    densest: Array
    dense_share: Array
    saturated: Array
