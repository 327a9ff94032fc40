"""`view_picture` with any family of `--model hf`, beside plain eager attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eah
from eval.analysis.picture import view_picture
from models.hf import HFVlm
from tests.models.hf import CHECKPOINTS
from tests.models.hf.conftest import Wrap

QUESTION = "Is there a cat in the image?"
CONFIG = eah.EAHConfig.preset("scale-free", layers=(1,), threshold=0.5)
# Whose two kernels see the same, and whose answer to `output_attentions` has every layer.
COMPARED = ("llava", "qwen2.5-vl", "qwen3-vl", "internvl", "idefics3", "gemma3", "glm-4v")


def eager_attentions(vlm: HFVlm, picture: Image.Image) -> tuple[Any, list[int]]:
    """Return the weights of a plain forward pass, and the places of the image tokens."""
    batch = vlm._batch([vlm.chat.prepare(picture, [QUESTION])], [QUESTION])
    image = vlm._image_mask(batch.inputs["input_ids"])[0].nonzero()[:, 0].tolist()
    before = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return vlm.model(**batch.inputs, output_attentions=True).attentions, image
    finally:
        vlm.model.set_attn_implementation(before)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_family_is_viewed(wrap: Wrap, pictures: list[Image.Image], name: str) -> None:
    vlm, picture = wrap(name), pictures[1]
    tokens = vlm._image_mask(vlm.chat.prepare(picture, [QUESTION]).texts[QUESTION]["input_ids"])

    view = view_picture(vlm, picture, "a.jpg", QUESTION, CONFIG, name)

    assert view.layers
    for layer in view.layers:
        assert layer.before.shape[1] == layer.after.shape[1] == tokens.sum()
        assert (layer.shared is not None) == (layer.layer == 1)
    target = next(layer for layer in view.layers if layer.layer == 1)
    assert np.array_equal(
        target.after, np.tile(target.before[target.shared], (len(target.after), 1))
    )
    if view.grid is not None:
        assert view.grid[0] * view.grid[1] == tokens.sum()


@pytest.mark.parametrize("name", COMPARED)
def test_numbers_are_those_of_eager_attention(
    wrap: Wrap, pictures: list[Image.Image], name: str
) -> None:
    vlm, picture = wrap(name), pictures[1]
    attentions, image = eager_attentions(vlm, picture)

    view = view_picture(vlm, picture, "a.jpg", QUESTION, CONFIG, name)

    for layer in view.layers:
        for weights, found in zip(attentions[layer.layer][0], layer.before, strict=True):
            # Rows that see a token; a window or the whole prompt may be what they see.
            sees = (weights > 0) & ~torch.eye(len(weights), dtype=torch.bool)
            means = [float(weights[sees[:, y], y].mean()) for y in image]
            assert np.abs(np.array(means) - found).max() <= 1e-5
