"""Scenes that tiny-llava is trained on, rendered and preprocessed once."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from PIL import Image

from models.llava import Llava
from scripts.scenes.make import JPEG_QUALITY, scene_of
from scripts.scenes.scene import CATEGORIES, SIDE, Scene
from scripts.scenes.text import describe

TRAIN_SEED = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One training scene, reduced to what a step needs."""

    pixels: torch.Tensor  # (3, side, side) float16, preprocessed
    covered: torch.Tensor  # (patches, categories) bool, category of the box around a patch
    names: tuple[str, ...]
    theme: str
    description: str


def make_scenes(span: tuple[int, int]) -> list[Scene]:
    """Render scenes [start, stop) and pass them through JPEG, as an evaluation reads them."""
    made = []
    for index in range(*span):
        scene, _ = scene_of(TRAIN_SEED, index)
        jpeg = io.BytesIO()
        scene.image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
        picture = Image.open(jpeg)
        picture.load()
        made.append(Scene(picture, scene.theme, scene.objects))
    return made


def covered_patches(scene: Scene, grid: int) -> torch.Tensor:
    """Return which category's box holds the centre of each patch, (patches, categories) bool."""
    covered = torch.zeros(grid, grid, len(CATEGORIES), dtype=torch.bool)
    centre = (torch.arange(grid) + 0.5) * SIDE / grid
    for placed in scene.objects:
        x, y, width, height = placed.bbox
        rows = (centre >= y) & (centre < y + height)
        columns = (centre >= x) & (centre < x + width)
        category = [c.name for c in CATEGORIES].index(placed.name)
        covered[:, :, category] |= rows[:, None] & columns[None, :]
    return covered.flatten(0, 1)


def load_samples(vlm: Llava, count: int) -> list[Sample]:
    """Render in two processes and preprocess with the wrapper's own code."""
    chunk = 500
    vision = vlm.model.config.vision_config
    grid = vision.image_size // vision.patch_size
    spans = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    samples = []
    with ProcessPoolExecutor(2) as pool:
        for scenes in pool.map(make_scenes, spans):
            pixels = vlm.preprocess([scene.image for scene in scenes]).half()
            samples += [
                Sample(image, covered_patches(s, grid), tuple(s.names), s.theme, describe(s))
                for image, s in zip(pixels, scenes, strict=True)
            ]
    return samples
