"""Pixel values, and what goes with them, as families want them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.eah.families.case import IMAGE, VIDEO, Tensors


def pixels(*shape: int) -> Callable[[int, int], Tensors]:
    """Return pictures of a shape, all rows' pictures one after the other."""

    def tensors(rows: int, per_row: int) -> Tensors:
        return {"pixel_values": torch.randn(rows * per_row, *shape)}

    return tensors


def modalities(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    """Return which tokens are text (0), image (1) or video (2)."""
    return {"mm_token_type_ids": (ids == IMAGE) * 1 + (ids == VIDEO) * 2}


def pictures_of_rows(*shape: int) -> Callable[[int, int], Tensors]:
    """Return pictures of a shape as (rows, pictures per row, *shape)."""

    def tensors(rows: int, per_row: int) -> Tensors:
        return {"pixel_values": torch.randn(rows, per_row, *shape)}

    return tensors


def sized(size: int, key: str = "image_sizes") -> Callable[[int, int], Tensors]:
    """Return square pictures and their sizes."""

    def tensors(rows: int, per_row: int) -> Tensors:
        count = rows * per_row
        return {
            "pixel_values": torch.randn(count, 3, size, size),
            key: torch.full((count, 2), size),
        }

    return tensors


def tiles(count: int, size: int) -> Callable[[int, int], Tensors]:
    """Return pictures cut into square tiles, with the size of the whole."""

    def tensors(rows: int, per_row: int) -> Tensors:
        pictures = rows * per_row
        return {
            "pixel_values": torch.randn(pictures, count, 3, size, size),
            "image_sizes": torch.tensor([[2 * size, 2 * size]] * pictures),
        }

    return tensors


def clips(count: int, *shape: int, key: str = "pixel_values_videos") -> Callable[..., Tensors]:
    """Return videos of some frames."""

    def tensors(rows: int, per_row: int) -> Tensors:
        return {key: torch.randn(rows * per_row, count, *shape)}

    return tensors


def grid(
    height: int, width: int, *dims: int, frames: int = 1, video: bool = False, **extra: Any
) -> Callable[[int, int], Tensors]:
    """Return flat patches and the (frames, height, width) of each picture or video.

    Args:
        height: Patches from top to bottom.
        width: Patches from left to right.
        dims: Shape of a patch.
        frames: Patches in time.
        video: Whether they are arguments for videos.
        extra: More arguments, with one value per picture.
    """
    names = (
        ("pixel_values_videos", "video_grid_thw") if video else ("pixel_values", "image_grid_thw")
    )

    def tensors(rows: int, per_row: int) -> Tensors:
        count = rows * per_row
        shape = torch.tensor([[frames, height, width]] * count)
        values = torch.randn(count * frames * height * width, *dims)
        more = {name: torch.tensor([value] * count) for name, value in extra.items()}
        return {names[0]: values, names[1]: shape, **more}

    return tensors


def always_masked(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    """Return the attention mask also of prompts without padding."""
    return {"attention_mask": mask}
