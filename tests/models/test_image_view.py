"""The picture as the paper's models see it, and where their image tokens are in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models
from models.images import pad_to_square
from tests.models.toys import FAMILIES, make_folder

RED = (255, 0, 0)
GREY = (90, 90, 90)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("toys")
    return {family: make_folder(family, root / family) for family in FAMILIES}


def load(folders: dict[str, Path], family: str, protocol: str) -> models.VLM:
    return models.load(family, checkpoint=str(folders[family]), device="cpu", protocol=protocol)


def side_of(vlm: models.VLM) -> int:
    return int(vlm.model.config.vision_config.image_size)


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_become_the_picture_again(folders: dict[str, Path], family: str) -> None:
    vlm = load(folders, family, "opera" if family != "shikra" else "official")
    side = side_of(vlm)
    picture = noise(side, side)  # nothing is resized

    view = vlm.image_view(vlm.preprocessing.prepare(picture, ()))

    assert np.array_equal(np.asarray(view.picture), np.asarray(picture))
    patches = side // vlm.model.config.vision_config.patch_size
    is_grid = family in ("llava-1.5", "shikra")
    assert view.grid == ((patches, patches) if is_grid else None)


def test_llava_sees_the_middle_or_a_padded_picture(folders: dict[str, Path]) -> None:
    cropping, padding = (load(folders, "llava-1.5", p) for p in ("opera", "official"))
    side = side_of(cropping)
    wide = noise(3 * side, side)

    cropped = cropping.image_view(cropping.preprocessing.prepare(wide, ())).picture
    padded = padding.image_view(padding.preprocessing.prepare(wide, ())).picture

    assert np.array_equal(np.asarray(cropped), np.asarray(wide)[:, side : 2 * side])
    square = pad_to_square(wide, (122, 116, 104)).resize((side, side), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(padded).astype(int) - np.asarray(square)).max() <= 1


@pytest.mark.parametrize("protocol", ["opera", "official"])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_coloured_corner_is_where_the_grid_says(
    folders: dict[str, Path], protocol: str, corner: tuple[int, int]
) -> None:
    vlm = load(folders, "llava-1.5", protocol)
    side = side_of(vlm)
    grey = Image.new("RGB", (3 * side, 2 * side), GREY)
    # The corner of what the model sees: the middle under "opera", the padded whole otherwise.
    left, width = (side // 2, 2 * side) if protocol == "opera" else (0, 3 * side)
    coloured = grey.copy()
    box = Image.new("RGB", (width // 3, 2 * side // 3), RED)
    place = (left + corner[1] * (width - box.width), corner[0] * (2 * side - box.height))
    coloured.paste(box, place)
    prepared = [vlm.preprocessing.prepare(image, ()) for image in (grey, coloured)]

    before, after = vlm.encode(prepared)
    view = vlm.image_view(prepared[1])

    assert view.grid is not None
    rows, columns = view.grid
    changed = (after - before).norm(dim=-1).view(rows, columns)
    at = divmod(int(changed.argmax()), columns)
    seen = np.asarray(view.picture).astype(int)
    redness = torch.from_numpy(seen[..., 0] - seen[..., 1])
    cells = redness.unfold(0, side // rows, side // rows).unfold(
        1, side // columns, side // columns
    )
    reddest = divmod(int(cells.float().mean((2, 3)).argmax()), columns)
    assert at == reddest
    assert reddest[1] == corner[1] * (columns - 1)
