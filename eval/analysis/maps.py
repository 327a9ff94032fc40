"""Numbers by layer and head: how dense heads are in vision sinks, and where they look at the image.

Axes: T thresholds, G least densities, L layers, H heads, N prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan
from typing import Final

import numpy as np

from eval.analysis.observed import Observed
from eval.stats.intervals import Array

UNITS: Final = {"attention": "mean attention", "uniform": "times uniform attention"}
SHALLOW: Final = 4  # shallow layers are the first of so many parts, and two at least


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

    def threshold_text(self, at: int) -> str:
        """Return a threshold with its unit."""
        return f"{self.thresholds[at]:g} ({UNITS.get(self.unit, self.unit)})"

    def sentence(self) -> str:
        """Return which head of the shallow layers is densest, in plain words."""
        count = min(len(self.layers), max(2, ceil(len(self.layers) / SHALLOW)))
        shallow = self.density[0, :count]
        threshold = self.threshold_text(0)
        layers = f"layers {self.layers[0]} to {self.layers[count - 1]}" if count > 1 else (
            f"layer {self.layers[0]}"
        )  # fmt: skip
        highest = np.nanmax(shallow, initial=0.0)
        if not highest > 0:
            return (
                f"{self.model}: no head of {layers} has a vision sink at threshold {threshold}; a "
                "lower threshold would show where the model looks."
            )
        layer, head = np.unravel_index(np.nanargmax(shallow), shallow.shape)
        mean = np.nanmean(shallow)
        return (
            f"{self.model}: of the shallow {layers}, head {head} of layer "
            f"{self.layers[int(layer)]} is densest. At threshold {threshold}, {100 * highest:.3g} "
            "% of the image's tokens are vision sinks in it on average, and "
            f"{100 * mean:.3g} % in the mean over the heads of these layers."
        )


def head_map(
    observed: Sequence[Observed],
    *,
    model: str,
    thresholds: Sequence[float],
    unit: str,
    gammas: Sequence[float],
) -> HeadMap:
    """Return the means over prompts.

    Args:
        observed: Prompts, all of one model.
        model: The model, as tables call it.
        thresholds: What sinks were counted with.
        unit: Their unit.
        gammas: Least densities of a dense head.
    """
    layers = observed[0].layers
    heads = max(len(one.attention) for one in layers)
    shape = len(thresholds), len(layers), heads
    density, densest = np.full(shape, nan), np.full(shape, nan)
    attention = np.full(shape[1:], nan)
    dense_share = np.full((len(thresholds), len(gammas), len(layers)), nan)
    saturated = np.full(shape[:2], nan)
    tokens = np.array([one.image_tokens for one in observed])  # (N,)
    for at in range(len(layers)):
        own = [one.layers[at] for one in observed]
        here = len(own[0].attention)
        # (N, T, H) / (N, 1, 1) -> (N, T, H)
        shares = np.array([one.sinks for one in own]) / tokens[:, None, None]
        density[:, at, :here] = shares.mean(axis=0)
        attention[at, :here] = np.mean([one.attention for one in own], axis=0)
        chosen = np.array([[-1 if h is None else h for h in one.densest] for one in own])  # (N, T)
        densest[:, at, :here] = (chosen[:, :, None] == np.arange(here)).mean(axis=0)
        for g, gamma in enumerate(gammas):
            dense_share[:, g, at] = (shares >= gamma).mean(axis=(0, 2))
        saturated[:, at] = (shares == 1).all(axis=2).mean(axis=0)
    return HeadMap(
        model,
        tuple(one.layer for one in layers),
        tuple(thresholds),
        unit,
        tuple(gammas),
        pictures=len({one.image for one in observed}),
        prompts=len(observed),
        image_tokens=float(tokens.mean()),
        density=density,
        attention=attention,
        densest=densest,
        dense_share=dense_share,
        saturated=saturated,
    )


def long_rows(maps: Sequence[HeadMap]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of `sinks.csv`: one row for each threshold, layer and head."""
    header = ["model", "threshold", "threshold_unit", "layer", "head", "pictures", "prompts",
              "image_tokens", "density", "image_attention", "densest"]  # fmt: skip
    rows: list[list[object]] = []
    for one in maps:
        for t, threshold in enumerate(one.thresholds):
            for at, layer in enumerate(one.layers):
                for head in np.flatnonzero(~np.isnan(one.attention[at])).tolist():
                    rows.append([
                        one.model, threshold, one.unit, layer, head, one.pictures, one.prompts,
                        one.image_tokens, float(one.density[t, at, head]),
                        float(one.attention[at, head]), float(one.densest[t, at, head]),
                    ])  # fmt: skip
    return header, rows
