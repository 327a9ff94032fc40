"""What the heads see of one picture, before and after EAH.

Axes: L layers, H heads, I image tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer's attention to the image tokens: means over the rows that see a token but its own.

    Attributes:
        layer: Layer index, from 0.
        before: Without EAH, (H, I) float32.
        after: With EAH, (H, I) float32.
        sinks_before: Which tokens are sinks without EAH, (H, I) bool.
        sinks_after: Likewise with EAH.
        densest: Densest head without EAH; None where no head has a sink.
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
