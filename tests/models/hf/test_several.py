"""Several pictures and videos in one prompt, through the Python API."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eah
import models
from models.errors import ModelError
from models.hf import HFVlm
from tests.models.hf import CHECKPOINTS
from tests.models.hf.asking import encode, encode_video, missing
from tests.models.hf.conftest import Loaded
from tests.models.hf.scenes import Scenes

QUESTION = "Is there a cat in the image?"
NEW = 8
EAH = eah.EAHConfig.preset("scale-free", layers=(1,), threshold=0.1)
several = pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if c.shown > 1])
videos = pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if c.video is not None])


@pytest.fixture(scope="session")
def wrap(folder_of: Callable[[str], Path]) -> Callable[[str], HFVlm]:
    """Return a function that loads a wrapper by a checkpoint's name, as a user would."""

    @cache
    def wrapped(name: str) -> HFVlm:
        if absent := missing(CHECKPOINTS[name].images_need):
            pytest.skip(f"the processor of {name} needs {', '.join(absent)}")
        vlm = models.load("hf", checkpoint=str(folder_of(name)), device="cpu")
        assert isinstance(vlm, HFVlm)
        return vlm

    return wrapped


@pytest.fixture(scope="session")
def pictures(scenes: Scenes) -> list[Image.Image]:
    return scenes.pictures()


def plain_answer(loaded: Loaded, inputs: dict[str, Any]) -> str:
    ids = loaded.model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    return str(loaded.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


@several
def test_two_pictures_answer_as_a_plain_script(
    name: str,
    wrap: Callable[[str], HFVlm],
    load: Callable[[str], Loaded],
    pictures: list[Image.Image],
) -> None:
    vlm, loaded = wrap(name), load(name)
    two = [pictures[0], pictures[1].resize((224, 120))]
    inputs = encode(loaded.processor, loaded.checkpoint, [QUESTION], [two])
    for config in (None, EAH):
        if config is not None:
            with eah.enabled(vlm, config), eah.enabled(loaded.model, config):
                answer = vlm.generate(list(two), QUESTION, max_new_tokens=NEW)
                assert answer == plain_answer(loaded, inputs)
        else:
            answer = vlm.generate(tuple(two), QUESTION, max_new_tokens=NEW)
            assert answer == plain_answer(loaded, inputs)


@videos
def test_a_video_answers_as_a_plain_script(
    name: str,
    wrap: Callable[[str], HFVlm],
    load: Callable[[str], Loaded],
    pictures: list[Image.Image],
) -> None:
    if absent := missing(CHECKPOINTS[name].needs):
        pytest.skip(f"videos of {name} need {', '.join(absent)}")
    vlm, loaded = wrap(name), load(name)
    film = np.stack([np.asarray(picture) for picture in pictures[:4]])
    frames = torch.from_numpy(film).permute(0, 3, 1, 2)
    expected = plain_answer(loaded, encode_video(loaded.processor, QUESTION, frames))

    assert vlm.generate(None, QUESTION, videos=[film], max_new_tokens=NEW) == expected
    assert vlm.generate(None, QUESTION, videos=[pictures[:4]], max_new_tokens=NEW) == expected


@videos
def test_without_torchvision_a_video_is_one_sentence(
    name: str, wrap: Callable[[str], HFVlm], pictures: list[Image.Image]
) -> None:
    if not missing(["torchvision"]):
        pytest.skip("torchvision is installed")
    with pytest.raises(ModelError, match="needs torchvision for videos, which is not installed"):
        wrap(name).generate(None, QUESTION, videos=[pictures[:4]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": []}, "no picture and no video; pass at least one of them"),
        ({"image": None}, "no picture and no video; pass at least one of them"),
        ({"image": ["/nowhere.jpg"]}, "/nowhere.jpg"),
        ({"image": None, "videos": ["film.mp4"]}, "video 'film.mp4'; pass a list of its frames"),
        ({"image": None, "videos": [[]]}, r"video \[\]; pass a list of its frames"),
        (
            {"image": None, "videos": [[Image.new("RGB", (9, 9)), Image.new("RGB", (8, 9))]]},
            "a video with frames of 2 sizes; make them the same size",
        ),
    ],
)
def test_what_is_no_picture_or_video_is_one_sentence(
    arguments: dict[str, Any], message: str, wrap: Callable[[str], HFVlm]
) -> None:
    with pytest.raises(ModelError, match=message) as error:
        wrap("llava").generate(question=QUESTION, **arguments)
    assert "\n" not in str(error.value)


def test_a_family_without_videos_refuses_one(
    wrap: Callable[[str], HFVlm], pictures: list[Image.Image]
) -> None:
    with pytest.raises(ModelError, match="Idefics3Processor takes no videos; pass pictures"):
        wrap("idefics3").generate(None, QUESTION, videos=[pictures[:4]])
