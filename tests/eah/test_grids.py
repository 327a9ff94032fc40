"""Grids of image tokens, shown by changing one cell of a picture at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eah.grids import SIDES, token_grid
from models.llava import ShikraConfig, ShikraForConditionalGeneration
from tests.eah.families import WORKING, Family
from tests.eah.families.case import Recipe
from tests.models.hf.checkpoint import RECIPES

CASES = {family.name: family for family in WORKING if family.image is not None}
GRIDS = [
    name
    for name, family in CASES.items()
    if isinstance(family.build, Recipe) and family.build.model_type in SIDES
]


def image_embeddings(model: Any, inputs: dict[str, Any], image: torch.Tensor) -> torch.Tensor:
    """Return the image tokens' embeddings as the decoder gets them, (I, E)."""
    found = []

    def keep(_: Any, __: Any, given: dict[str, Any]) -> None:
        embeds = given.get("inputs_embeds")
        if embeds is not None and embeds.shape[:2] == image.shape:
            found.append(embeds.detach().clone())

    hooks = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in model.modules()]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return found[-1][image]


def changed_most(model: Any, family: Family, at: int, grid: tuple[int, int]) -> int:
    """Change the cell of the picture at a place of the grid; return the token that changes most."""
    inputs = family.inputs("one image")
    image = family.image_columns(inputs)
    before = image_embeddings(model, inputs, image)
    pixels = inputs["pixel_values"].clone()
    height, width = pixels.shape[-2] // grid[0], pixels.shape[-1] // grid[1]
    row, column = divmod(at, grid[1])
    cell = pixels[..., row * height : (row + 1) * height, column * width : (column + 1) * width]
    cell += 3 * torch.randn(cell.shape, generator=torch.Generator().manual_seed(at))
    after = image_embeddings(model, {**inputs, "pixel_values": pixels}, image)
    return int((after - before).norm(dim=-1).argmax())


def model_of(name: str) -> Any:
    if name != "shikra":
        return CASES[name].build("sdpa")
    settings = RECIPES["llava"].config().to_dict()
    model = ShikraForConditionalGeneration(ShikraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, 0.15, generator=generator)
    return model


@pytest.mark.parametrize("name", [*GRIDS, "shikra"])
def test_a_change_in_a_cell_changes_its_token_most(name: str) -> None:
    family, model = CASES["llava" if name == "shikra" else name], model_of(name)
    tokens = int(family.image_columns(family.inputs("one image")).sum())

    grid = token_grid(model.config, tokens)

    assert grid is not None
    assert grid[0] * grid[1] == tokens
    places = {0, grid[1] - 1, grid[1], tokens // 2, tokens - 2, tokens - 1}
    assert {at: changed_most(model, family, at, grid) for at in places} == {a: a for a in places}


def test_every_listed_family_is_shown() -> None:
    shown = {CASES[name].build.model_type for name in GRIDS}  # type: ignore[union-attr]

    assert shown | {"shikra"} == set(SIDES)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(GRIDS)))
def test_other_families_have_no_grid(name: str) -> None:
    family = CASES[name]
    tokens = int(family.image_columns(family.inputs("one image")).sum())
    config = family.build("sdpa").config

    assert all(token_grid(config, count) is None for count in (4, 9, 16, 32, 64, tokens))


@pytest.mark.parametrize("name", GRIDS)
def test_two_pictures_have_no_grid(name: str) -> None:
    family = CASES[name]
    tokens = int(family.image_columns(family.inputs("two images")).sum())

    assert token_grid(family.build("sdpa").config, tokens) is None


def test_llava_with_another_tower_or_selection_has_no_grid() -> None:
    llava = RECIPES["llava"]
    clip = {"model_type": "clip_vision_model"}

    assert token_grid(llava.config(vision=clip), 16) == (4, 4)
    full = llava.config(vision=clip, vision_feature_select_strategy="full")
    assert token_grid(full, 17) is None
    assert token_grid(full, 16) is None
    assert token_grid(llava.config(vision={"model_type": "pixtral"}), 16) is None
    siglip = {"model_type": "siglip_vision_model"}
    assert token_grid(llava.config(vision=siglip), 16) is None  # "default" drops a patch
    kept = llava.config(vision=siglip, vision_feature_select_strategy="full")
    assert token_grid(kept, 16) == (4, 4)
