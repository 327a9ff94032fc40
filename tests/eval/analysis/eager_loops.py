"""Sinks counted in plain loops over the weights of eager attention, one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import models
from models.hf import HFVlm


class Counted(NamedTuple):
    """One head of one layer on one prompt."""

    means: list[float]  # of each image token's column
    uniform: list[float]  # what they would be if every row spread its attention evenly


def count(vlm: models.VLM, picture: Path, text: str) -> list[list[Counted]]:
    """Return what each layer's heads give to each image token, by layer and head."""
    with Image.open(picture) as image:
        prepared = vlm.preprocessing.prepare(image.convert("RGB"), [text])
    implementation = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            prompts: Any
            if isinstance(vlm, HFVlm):  # ids and pixels, also where the wrapper gives embeddings
                prompts = vlm._batch([prepared], [text])
            else:
                prompts = vlm.encode_prompts(vlm.encode([prepared]), [text])
            found = vlm.language_model(**prompts.inputs, output_attentions=True).attentions
    finally:
        vlm.model.set_attn_implementation(implementation)
    columns = [at for at, here in enumerate(prompts.method_image_mask[0].tolist()) if here]
    return [[_count(head, columns) for head in layer[0]] for layer in found]


def _count(weights: torch.Tensor, columns: list[int]) -> Counted:
    rows = len(weights)
    means, uniform = [], []
    for y in columns:
        below = range(y + 1, rows)
        means.append(sum(float(weights[x, y]) for x in below) / len(below))
        uniform.append(sum(1 / (x + 1) for x in below) / len(below))
    return Counted(means, uniform)
