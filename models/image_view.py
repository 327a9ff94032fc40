"""The picture as a model sees it, and the positions of its image tokens: for figures.

Axes: H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image

from eah.grids import token_grid

PIXELS: Final = "pixel_values"
PATCHES: Final = "image_grid_thw"  # frames, rows and columns of patches of each picture
# Processors that order patches by image token, and image tokens row by row.
PATCH_PROCESSORS: Final = ("Qwen2VLImageProcessor", "Glm4vImageProcessor")


class ImageView(NamedTuple):
    """A picture and its image tokens.

    Attributes:
        picture: As the model sees it: cropped, padded or resized. The grid covers it.
        grid: Rows and columns of image tokens; None if their positions are unknown.
    """

    picture: Image.Image
    grid: tuple[int, int] | None


def to_image(
    pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], scale: float = 255.0
) -> Image.Image:
    """Return the picture that normalised pixels were made from.

    Args:
        pixels: Shape (1, 3, H, W).
        mean: Mean that was subtracted, per channel.
        std: Standard deviation that was divided by, per channel.
        scale: Factor from values before normalisation to 0..255.
    """
    values = pixels[0].float().cpu().numpy().transpose(1, 2, 0)  # (H, W, 3)
    values = (values * np.asarray(std) + np.asarray(mean)) * scale
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def processor_view(
    picture: Image.Image,
    inputs: dict[str, torch.Tensor],
    image_tokens: int,
    processor: Any,
    config: Any,
) -> ImageView:
    """Return a picture as a model of transformers sees it.

    Args:
        picture: The picture, in RGB.
        inputs: The processor's output for it and a question, one batch row.
        image_tokens: Number of image tokens in it.
        processor: The image processor.
        config: The model's config.
    """
    if PATCHES in inputs:
        return _patch_view(picture, inputs[PATCHES], image_tokens, processor, config)
    pixels = inputs.get(PIXELS)
    if pixels is None or pixels.dim() != 4 or pixels.shape[:2] != (1, 3):  # tiles, or patches
        return ImageView(picture, None)
    mean, std = [0.0] * 3, [1.0] * 3
    if getattr(processor, "do_normalize", False):  # not every processor has these steps
        mean, std = processor.image_mean, processor.image_std
    scale = 1 / processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    return ImageView(to_image(pixels, mean, std, scale), token_grid(config, image_tokens))


def _patch_view(
    picture: Image.Image, grids: torch.Tensor, image_tokens: int, processor: Any, config: Any
) -> ImageView:
    """Return the model's view of a picture that is resized to whole patches, not to a square."""
    if len(grids) != 1 or not type(processor).__name__.startswith(PATCH_PROCESSORS):
        return ImageView(picture, None)
    frames, rows, columns = (int(n) for n in grids[0])
    merged, side = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    grid = rows // merged, columns // merged
    if frames != 1 or grid[0] * grid[1] != image_tokens:
        return ImageView(picture, None)
    size = columns * side, rows * side
    return ImageView(picture.resize(size, Image.Resampling.BICUBIC), grid)
