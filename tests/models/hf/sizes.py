"""Settings of image and video processors that several families share."""

from __future__ import annotations

from typing import Any

CLIP: dict[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}


def square(side: int) -> dict[str, dict[str, int]]:
    """Return the size of pictures of one side."""
    return {"size": {"height": side, "width": side}}


def area(smallest: int, largest: int) -> dict[str, Any]:
    """Return bounds of a picture's number of pixels, by both of their names."""
    return {
        "min_pixels": smallest,
        "max_pixels": largest,
        "size": {"shortest_edge": smallest, "longest_edge": largest},
    }
