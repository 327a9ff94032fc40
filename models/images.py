"""From a picture to the pixel tensor that a vision tower was trained on."""

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
    """Makes pixels of pictures. Plain data, so that worker processes can be given it."""

    @abstractmethod
    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels of pictures, shape (B, 3, side, side), float32.

        Raises:
            ModelError: If a picture can't be shown to a model, see `models.pictures.to_rgb`.
        """

    def describe(self) -> str:
        """Return what makes pixels, for people to read."""
        return repr(self)

    def prepare(self, image: Image.Image, questions: Sequence[str]) -> Any:
        """Return what `VLM.encode` takes of a picture: pixels, (1, 3, side, side), by default."""
        return self([image])


@dataclass(frozen=True, slots=True)
class ClipPreprocessing(Preprocessing):
    """Resizes the shortest edge bicubically, centre-crops and normalises as CLIP does."""

    size: int  # side of the crop in pixels (336 for LLaVA-1.5)
    padding: Color | None = None  # to pad to a square with, so that nothing is cropped

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels, shape (B, 3, size, size), float32."""
        rgb = [to_rgb(image) for image in images]
        if self.padding is not None:
            rgb = [pad_to_square(image, self.padding) for image in rgb]
        return _pixels(_clip_processor(self.size), rgb)


@dataclass(frozen=True, slots=True)
class SquashPreprocessing(Preprocessing):
    """Resizes to a square bicubically, whatever the picture's proportions, and normalises.

    The `blip_image_eval` processor of LAVIS and MiniGPT-4.
    """

    size: int  # side in pixels (224 for InstructBLIP and MiniGPT-4)

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels, shape (B, 3, size, size), float32."""
        return _pixels(_blip_processor(self.size), [to_rgb(image) for image in images])


def _pixels(processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return what a processor makes of pictures, shape (B, 3, side, side), float32."""
    batch = processor(images=list(images), return_tensors="np")["pixel_values"]
    return torch.from_numpy(np.asarray(batch, dtype=np.float32))


# Since version 5 transformers' image processors resize tensors with torchvision, which gives other
# pixels than the reference wrappers had; the PIL processors of either version give the same ones.
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
