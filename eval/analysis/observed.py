"""What was observed of one prompt, layer by layer, and how a line of a file holds it.

Axes: T thresholds, L layers, H heads, N prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.errors import EvaluationError
from eval.stats.intervals import Array


@dataclass(frozen=True, slots=True)
class ObservedLayer:
    """One layer of one prompt.

    Attributes:
        layer: Layer index, from 0.
        sinks: Vision sinks by threshold and head, (T, H).
        attention: Attention to the image by head, (H,): the sum of the image tokens' mean attention.
        densest: Densest head by threshold, (T,); None where no head has a sink.
    """

    layer: int
    sinks: tuple[tuple[int, ...], ...]
    attention: tuple[float, ...]
    densest: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """One prompt.

    Attributes:
        image: File name of the picture.
        text: What the model was asked about it.
        image_tokens: Number of image tokens.
        layers: Every layer that can be counted, in order.
    """

    image: str
    text: str
    image_tokens: int
    layers: tuple[ObservedLayer, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the prompt in a run."""
        return self.image, self.text
