"""Preprocess pictures to the pixel tensors that a vision tower was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.pictures import to_rgb

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


class Preprocessing(ABC):
    """Makes pixel tensors of pictures. Plain data, which can be sent to worker processes."""

    @abstractmethod
    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels of pictures, shape (B, 3, side, side), float32.

        Raises:
            ModelError: If a picture is not supported, see `models.pictures.to_rgb`.
        """

    def describe(self) -> str:
        """Return the preprocessing in a readable form."""
        return repr(self)

    def prepare(self, image: Image.Image, questions: Sequence[str]) -> Any:
        """Return a picture as `VLM.encode` takes it: by default pixels, (1, 3, side, side)."""
        return self([image])


@dataclass(frozen=True, slots=True)
class ClipPreprocessing(Preprocessing):
    """Resizes the shortest edge bicubically, centre-crops and normalises as CLIP does."""

    size: int  # side of the crop in pixels (336 for LLaVA-1.5)
    padding: Color | None = (
        None  # pads to a square, so that nothing is cropped; None for no padding
    )

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels, shape (B, 3, size, size), float32."""
        rgb = [to_rgb(image) for image in images]
        if self.padding is not None:
            rgb = [pad_to_square(image, self.padding) for image in rgb]
        return _pixels(_clip_processor(self.size), rgb)


@dataclass(frozen=True, slots=True)
class SquashPreprocessing(Preprocessing):
    """Resizes to a square bicubically, ignoring the picture's proportions, and normalises.

    It is the `blip_image_eval` processor of LAVIS and MiniGPT-4.
    """

    size: int  # side in pixels (224 for InstructBLIP and MiniGPT-4)

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels, shape (B, 3, size, size), float32."""
        return _pixels(_blip_processor(self.size), [to_rgb(image) for image in images])


def _pixels(processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return a processor's pixels of pictures, shape (B, 3, side, side), float32."""
    batch = processor(images=list(images), return_tensors="np")["pixel_values"]
    return torch.from_numpy(np.asarray(batch, dtype=np.float32))


# Since version 5, transformers' image processors resize tensors with torchvision, and the pixels
# differ from those of the reference wrappers. The PIL processors of both versions give theirs.
HAS_PIL_CLASSES = find_spec("transformers.models.clip.image_processing_pil_clip") is not None


@cache
def _clip_processor(size: int) -> Any:
    if HAS_PIL_CLASSES:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Clip
    else:
        from transformers import CLIPImageProcessor as Clip
    crop = {"height": size, "width": size}
    return Clip(
        size={"shortest_edge": size}, crop_size=crop, image_mean=CLIP_MEAN, image_std=CLIP_STD
    )


@cache
def _blip_processor(size: int) -> Any:
    if HAS_PIL_CLASSES:
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil as Blip
    else:
        from transformers import BlipImageProcessor as Blip
    square = {"height": size, "width": size}
    return Blip(size=square, image_mean=CLIP_MEAN, image_std=CLIP_STD)
