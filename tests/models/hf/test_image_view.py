"""Pictures as models of many families see them, by changing one cell of a picture at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import models
from models.errors import ModelError
from models.hf import HFVlm
from tests.models.hf import CHECKPOINTS
from tests.models.hf.conftest import Wrap

QUESTION = "Is there a cat in the image?"
# Rows and columns of a square picture's tokens, of one of 96 x 48 pixels where squares differ.
SQUARE = {"llava": (4, 4), "gemma3": (4, 4), "paligemma": (4, 4)}
PATCHED = {"qwen2-vl", "qwen2.5-vl", "qwen3-vl", "glm-4v"}
NONE = sorted(set(CHECKPOINTS) - set(SQUARE) - PATCHED)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def image_embeddings(vlm: HFVlm, picture: Image.Image) -> torch.Tensor:
    """Return the embeddings of a picture's tokens as the decoder gets them, (I, E)."""
    prepared = vlm.preprocessing.prepare(picture, [QUESTION])
    batch = vlm._batch([prepared], [QUESTION])
    image = vlm._image_mask(batch.inputs["input_ids"])
    found: list[torch.Tensor] = []

    def keep(_: Any, __: Any, given: dict[str, Any]) -> None:
        embeds = given.get("inputs_embeds")
        if embeds is not None and embeds.shape[:2] == image.shape:
            found.append(embeds.detach().clone())

    modules = vlm.model.modules()
    hooks = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in modules]
    with torch.no_grad():
        vlm.model(**batch.inputs)
    for hook in hooks:
        hook.remove()
    return found[-1][image]


def changed_most(
    vlm: HFVlm, picture: Image.Image, places: Sequence[int], grid: tuple[int, int]
) -> list[int]:
    """Change a cell of the picture at each place of the grid; return which tokens change most."""
    before, most = image_embeddings(vlm, picture), []
    rows, columns = grid
    width, height = picture.width // columns, picture.height // rows
    for at in places:
        row, column = divmod(at, columns)
        changed = picture.copy()
        changed.paste(noise(width, height, 1 + at), (column * width, row * height))
        most.append(int((image_embeddings(vlm, changed) - before).norm(dim=-1).argmax()))
    return most


@pytest.mark.parametrize("name", [*SQUARE, *sorted(PATCHED)])
def test_a_change_in_a_cell_changes_its_token_most(name: str, tmp_path: Path) -> None:
    # With the larger weights of the other tests, patches mix more than they stay themselves.
    replace(CHECKPOINTS[name], std=0.15).write(tmp_path)
    vlm = models.load("hf", checkpoint=str(tmp_path), device="cpu")
    assert isinstance(vlm, HFVlm)
    picture = noise(16, 16) if name in SQUARE else noise(96, 64)
    # Of the size that the model sees, so that resizing blurs nothing.
    picture = noise(*vlm.image_view(vlm.preprocessing.prepare(picture, [QUESTION])).picture.size)

    view = vlm.image_view(vlm.preprocessing.prepare(picture, [QUESTION]))

    assert view.grid is not None
    rows, columns = view.grid
    assert (rows, columns) == SQUARE.get(name, (rows, columns))
    assert (rows == columns) == (name in SQUARE)
    assert len(image_embeddings(vlm, picture)) == rows * columns
    places = [0, columns - 1, columns, rows * columns // 2, rows * columns - 1]
    assert changed_most(vlm, picture, places, view.grid) == places


@pytest.mark.parametrize("name", NONE)
def test_other_families_have_no_grid(wrap: Wrap, name: str) -> None:
    vlm = wrap(name)

    view = vlm.image_view(vlm.preprocessing.prepare(noise(96, 48), [QUESTION]))

    assert view.grid is None
    assert view.picture.mode == "RGB"


@pytest.mark.parametrize("name", [*SQUARE, "blip-2"])
def test_pixels_become_the_picture_again(wrap: Wrap, name: str) -> None:
    vlm, picture = wrap(name), noise(16, 16)  # nothing is resized

    view = vlm.image_view(vlm.preprocessing.prepare(picture, [QUESTION]))

    assert np.array_equal(np.asarray(view.picture), np.asarray(picture))


@pytest.mark.parametrize("name", sorted(PATCHED))
def test_patches_cover_the_whole_picture(wrap: Wrap, name: str) -> None:
    vlm, picture = wrap(name), noise(96, 64)
    vision = vlm.model.config.vision_config

    view = vlm.image_view(vlm.preprocessing.prepare(picture, [QUESTION]))

    assert view.grid is not None
    side = vision.patch_size * vision.spatial_merge_size
    assert view.picture.size == (view.grid[1] * side, view.grid[0] * side)
    whole = picture.resize(view.picture.size, Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(view.picture), np.asarray(whole))


def test_one_tile_of_internvl_is_the_whole_picture(wrap: Wrap) -> None:
    vlm, picture = wrap("internvl"), noise(16, 16)
    prepared = vlm.preprocessing.prepare(picture, [QUESTION])
    assert prepared.pixels["pixel_values"].shape[0] == 1

    view = vlm.image_view(prepared)

    assert view.grid == (2, 2)
    assert np.array_equal(np.asarray(view.picture), np.asarray(picture))


def test_several_pictures_are_refused(wrap: Wrap) -> None:
    vlm = wrap("llava")
    prepared = vlm.chat.prepare_all([noise(16, 16), noise(16, 16)], (), [QUESTION])

    with pytest.raises(ModelError, match="2 pictures and 0 videos; prepare one picture"):
        vlm.image_view(prepared)
