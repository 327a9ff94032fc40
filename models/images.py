"""From a picture to the pixel tensor that a vision tower was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from PIL import Image

Color = tuple[int, int, int]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def pad_to_square(image: Image.Image, color: Color) -> Image.Image:
    """Return the image centred on a square of `color`, as LLaVA's `expand2square` does."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def clip_pixels(images: Sequence[Image.Image], *, size: int) -> torch.Tensor:
    """Resize the shortest edge bicubically, centre-crop and normalise as CLIP does.

    Args:
        images: RGB pictures of any size.
        size: Side of the crop in pixels (336 for LLaVA-1.5).
    Returns:
        Pixels, shape (B, 3, size, size), float32.
    """
    processor = _clip_processor(size)
    batch = processor(images=list(images), return_tensors="np")["pixel_values"]
    return torch.from_numpy(np.asarray(batch, dtype=np.float32))


def squash_pixels(images: Sequence[Image.Image], *, size: int) -> torch.Tensor:
    """Resize to a square bicubically, whatever the picture's proportions, and normalise.

    The `blip_image_eval` processor of LAVIS and MiniGPT-4.

    Args:
        images: RGB pictures of any size.
        size: Side in pixels (224 for InstructBLIP and MiniGPT-4).
    Returns:
        Pixels, shape (B, 3, size, size), float32.
    """
    processor = _blip_processor(size)
    batch = processor(images=list(images), return_tensors="np")["pixel_values"]
    return torch.from_numpy(np.asarray(batch, dtype=np.float32))


def _clip_processor(size: int) -> Any:
    """Build the PIL image processor of the installed transformers.

    Since version 5 `CLIPImageProcessor` resizes tensors with torchvision, which gives other pixels
    than the reference wrappers had; the PIL processor of either version gives the same ones.
    """
    if Version(transformers.__version__) >= Version("5.0"):
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Clip
    else:
        from transformers import CLIPImageProcessor as Clip
    return Clip(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )


def _blip_processor(size: int) -> Any:
    """Build the PIL image processor of the installed transformers, as `_clip_processor` does."""
    if Version(transformers.__version__) >= Version("5.0"):
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil as Blip
    else:
        from transformers import BlipImageProcessor as Blip
    return Blip(
        size={"height": size, "width": size},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
