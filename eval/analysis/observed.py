"""The observations of one prompt, layer by layer, and their line in a file.

Axes: T thresholds, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.typed import check_types

DIGITS: Final = 7  # of float32
Key = tuple[str, str]
"""Picture and text, which identify a prompt."""


@dataclass(frozen=True, slots=True)
class ObservedLayer:
    """One layer of one prompt.

    Attributes:
        layer: Layer index, from 0.
        sinks: Vision sinks by threshold and head, (T, H).
        attention: Attention to the image by head, (H,): the sum of what its tokens receive.
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
        image_tokens: Number of image tokens, at least 1.
        layers: Every layer that can be counted, in order.
    """

    image: str
    text: str
    image_tokens: int
    layers: tuple[ObservedLayer, ...]

    @property
    def key(self) -> Key:
        """What identifies the prompt in a run."""
        return self.image, self.text

    def as_record(self) -> dict[str, Any]:
        """Return the prompt for a line of `observations.jsonl`."""
        record = asdict(self)
        for layer in record["layers"]:
            layer["attention"] = [float(f"{x:.{DIGITS}g}") for x in layer["attention"]]
        return record


def observed_of(record: Mapping[str, Any], thresholds: int, where: str) -> Observed:
    """Return the content of a line of `observations.jsonl`.

    Args:
        record: The line's object.
        thresholds: Number of thresholds, T.
        where: File and line, for error messages.
    Raises:
        EvaluationError: If something is missing in it, or of another type or size.
    """
    try:
        image, text, tokens, layers = (record[item.name] for item in fields(Observed))
        found = Observed(image, text, tokens, tuple(_layer_of(one, thresholds) for one in layers))
        check_types(found)
        _check_numbers(found)
    except (TypeError, KeyError, ValueError) as error:
        raise EvaluationError(
            f"{where} is not a recorded observation ({type(error).__name__}: {error}); delete that "
            "line and run again"
        ) from error
    return found


def _layer_of(record: Mapping[str, Any], thresholds: int) -> ObservedLayer:
    layer, sinks, attention, densest = (record[item.name] for item in fields(ObservedLayer))
    found = ObservedLayer(layer, tuple(map(tuple, sinks)), tuple(attention), tuple(densest))
    check_types(found)
    if {len(found.sinks), len(found.densest)} != {thresholds} or {
        len(row) for row in found.sinks
    } != {len(found.attention)}:
        raise ValueError(f"layer {layer} has not {thresholds} counts for each of its heads")
    return found


def _check_numbers(found: Observed) -> None:
    """Check the numbers that `check_types` does not look into.

    Raises:
        ValueError: Naming the layer.
    """
    tokens = found.image_tokens
    if tokens < 1 or not found.layers:
        raise ValueError("it has no image token or no layer")
    for layer in found.layers:
        numbers = [
            *((count, int, tokens + 1) for row in layer.sinks for count in row),
            *((head, int, len(layer.attention)) for head in layer.densest if head is not None),
            *((float(share), float, tokens + 1) for share in layer.attention),
        ]
        if not all(type(x) is kind and 0 <= x < bound for x, kind, bound in numbers):
            raise ValueError(f"layer {layer.layer} has a number that can't be")
