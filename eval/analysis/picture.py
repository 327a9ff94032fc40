"""What the heads see of one picture, before and after EAH.

Axes: L layers, H heads, I image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import eah
from eval.analysis.prefill import prefill
from eval.errors import EvaluationError
from models.base import VLM


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer's attention to the image tokens: means over the rows that see a token but its own.

    Attributes:
        layer: Layer index, from 0.
        before: Without EAH, (H, I) float32.
        after: With EAH, (H, I) float32.
        sinks_before: Which tokens are sinks without EAH, (H, I) bool.
        sinks_after: Likewise with EAH.
        densest: Densest head without EAH; None where no head has a sink, or where the rule
            "released_code" passes over head 0.
        shared: Head whose map EAH shared in this layer; None where it did not.
    """

    layer: int
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    sinks_before: NDArray[np.bool_]
    sinks_after: NDArray[np.bool_]
    densest: int | None
    shared: int | None


@dataclass(frozen=True, slots=True)
class PictureView:
    """One picture and one question.

    Attributes:
        model: The model, as tables call it.
        image: File name of the picture.
        question: What was asked.
        seen: The picture as the model sees it: cropped, padded or resized; the grid covers it.
        grid: Rows and columns of image tokens; None where the tokens have no known places in the
            picture, and are shown in their order.
        layers: Every layer that can be counted, in order.
        target: The first layer that EAH changes.
    """

    model: str
    image: str
    question: str
    seen: Image.Image
    grid: tuple[int, int] | None
    layers: tuple[LayerView, ...]
    target: int


def view_picture(
    vlm: VLM, image: Image.Image, name: str, text: str, config: eah.EAHConfig, model: str
) -> PictureView:
    """Ask a model about a picture twice, without EAH and with it, and return what its heads see.

    Each time it is one prefill. EAH must not be enabled on the model.

    Args:
        vlm: The model.
        image: The picture.
        name: Its file name.
        text: What is asked.
        config: EAH's settings, which sinks are counted with.
        model: The model's name in tables.
    Raises:
        EvaluationError: If nothing could be observed.
    """
    prepared = vlm.preprocessing.prepare(image, [text])
    features = vlm.encode([prepared])
    # The densest head itself, even if EAH's settings skip it.
    before = _observe(vlm, features, text, replace(config, head=None, min_density=0.0))
    with eah.enabled(vlm.model, config):
        after = _observe(vlm, features, text, config)
    layers = [
        _layer_view(own, changed, is_target=own.layer in config.layers)
        for own, changed in zip(before, after, strict=True)
        if own.skipped is None
    ]
    if not layers:
        raise EvaluationError(
            f"nothing was observed about picture {name}: {before[0].skipped}; ask about another one"
        )
    seen, grid = vlm.image_view(prepared)
    if config.image_span is not None:  # fixed columns, whatever tokens they contain
        grid = None
    return PictureView(model, name, text, seen, grid, tuple(layers), config.layers[0])


def _observe(
    vlm: VLM, features: Any, text: str, config: eah.EAHConfig
) -> Sequence[eah.LayerObservation]:
    """Return what every layer sees at the prefill of one prompt."""
    with eah.observe(vlm.model, config=config, rules=()) as seen:
        prefill(vlm, features, [text], config.image_span)
    return seen.report()


def _layer_view(
    before: eah.LayerObservation, after: eah.LayerObservation, *, is_target: bool
) -> LayerView:
    """Return one layer; a target layer is observed as it attends by itself, before it shares."""
    (densest,), shared = (before.heads or {})["config"], None
    means, sinks = after.means[0], after.is_sink[0]
    if is_target:
        (shared,) = (after.heads or {})["config"]
        means, sinks = after.shared(means), after.shared(sinks)
    return LayerView(
        before.layer,
        before.means[0].numpy(),
        means.numpy(),
        before.is_sink[0].numpy(),
        sinks.numpy(),
        densest,
        shared,
    )
