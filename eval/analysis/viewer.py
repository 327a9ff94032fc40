"""The numbers of a picture's maps as a page holds them: one byte a token, two maps a head.

Attention is mostly tiny with a few large values, so a byte is the square root's: of a head whose
largest value is 0.3, steps at 0.002 are 0.0002 wide, where a linear scale's are 0.0012.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.analysis.figures.pictures import shown_head

if TYPE_CHECKING:
    from eval.analysis.picture import LayerView, PictureView

STEPS: Final = 255
STRIP: Final = 32  # most tokens in a row where they have no places in the picture


def viewer_data(view: PictureView) -> dict[str, Any]:
    """Return a picture's maps for the page's script.

    `scales` has the largest value of a head, before or after; `before` and `after` the bytes
    `round(255 sqrt(value / scale))`, and `sinks_before` and `sinks_after` one bit a token, head
    after head in base64. A value that is nan is 0.
    """
    tokens = view.layers[0].before.shape[1]
    rows, columns = view.grid or (-(-tokens // min(tokens, STRIP)), min(tokens, STRIP))
    start = [layer.layer for layer in view.layers].index(view.target)
    return {
        "tokens": tokens,
        "rows": rows,
        "columns": columns,
        "placed": view.grid is not None,
        "start": start,
        "start_head": shown_head(view.layers[start]),
        "layers": [_layer(layer) for layer in view.layers],
    }


def _layer(layer: LayerView) -> dict[str, Any]:
    before, after = (np.nan_to_num(values, nan=0.0) for values in (layer.before, layer.after))
    scales = np.maximum(before.max(axis=1), after.max(axis=1))  # (H, I) -> (H,)
    return {
        "layer": layer.layer,
        "heads": len(before),
        "densest": layer.densest,
        "shared": layer.shared,
        "scales": [float(f"{scale:.6g}") for scale in scales],
        "before": quantise(before, scales),
        "after": quantise(after, scales),
        "sinks_before": _base64(np.packbits(layer.sinks_before, axis=1)),
        "sinks_after": _base64(np.packbits(layer.sinks_after, axis=1)),
    }


def quantise(values: NDArray[np.float32], scales: NDArray[np.float32]) -> str:
    """Return values from 0 to a head's scale, (H, I) and (H,), as bytes in base64."""
    shares = values / np.where(scales > 0, scales, 1)[:, None]
    return _base64(np.rint(STEPS * np.sqrt(np.clip(shares, 0, 1))).astype(np.uint8))


def _base64(numbers: NDArray[np.uint8]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()
