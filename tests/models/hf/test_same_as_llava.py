"""`--model hf` and `--model llava-1.5 --protocol official` are the same for the same folder.

Where prompt and pixels are: here the chat template is LLaVA's own prompt, and pictures are squares.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import eah
import models
from eval.run.plan import Prompt
from models.decoding.yes_no import yes_no_ids
from models.hf import HFVlm
from models.prompts import IMAGE, VICUNA_SYSTEM
from tests.models.hf.asking import missing
from tests.models.hf.scenes import Scenes

TINY = Path(models.__file__).parent / "tiny-llava"
TEMPLATE = (
    f"{VICUNA_SYSTEM} USER: "
    "{% for part in messages[0]['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} ASSISTANT:"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[models.VLM, HFVlm]:
    """Return the same folder under both wrappers."""
    folder = tmp_path_factory.mktemp("folder") / "llava"
    shutil.copytree(TINY, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    options = {"checkpoint": str(folder), "device": "cpu", "dtype": "float32"}
    official = models.load("llava-1.5", protocol="official", **options)
    any_model = models.load("hf", **options)
    assert isinstance(any_model, HFVlm)
    return official, any_model


@pytest.mark.parametrize("preset", [None, "paper", "scale-free"])
@pytest.mark.parametrize("beams", [1, 2])
def test_the_same_folder_gives_the_same_answers(
    pair: tuple[models.VLM, HFVlm], scenes: Scenes, preset: str | None, beams: int
) -> None:
    pictures = [picture.resize((96, 96)) for picture in scenes.pictures()]
    names = [path.name for path in sorted(scenes.images.glob("*.jpg"))]
    asked = [Prompt(item, item.question) for item in scenes.questions["random"]][:48]
    places = [names.index(prompt.image) for prompt in asked]
    decoding = models.Decoding(max_new_tokens=12, num_beams=beams)
    found = []
    for vlm in pair:
        features = vlm.encode([vlm.preprocessing.prepare(picture, ()) for picture in pictures])
        config = None if preset is None else eah.EAHConfig.preset(preset)
        with nullcontext() if config is None else eah.enabled(vlm, config):
            found.append(
                vlm.answer_batch(
                    [features[place] for place in places],
                    [prompt.text for prompt in asked],
                    decoding,
                    yes_no=yes_no_ids(vlm.tokenizer),
                )
            )

    assert [answer[:3] for answer in found[0]] == [answer[:3] for answer in found[1]]
    assert len({answer.text for answer in found[0]}) > 1
    probabilities = torch.tensor([[answer.p_yes for answer in answers] for answers in found])
    assert torch.allclose(*probabilities, rtol=1e-4)


def test_prompt_and_pixels_are_the_same(pair: tuple[models.VLM, HFVlm], scenes: Scenes) -> None:
    official, any_model = pair
    picture = scenes.pictures()[0].resize((96, 96))
    ids = official.prompt_ids("Is there a cat?")
    shown = any_model.shown_prompt("Is there a cat?", picture).ids
    at = ids.index(IMAGE)

    assert shown == [*ids[:at], *[shown[at]] * any_model.num_image_tokens, *ids[at + 1 :]]
    pixels = any_model.preprocessing.prepare(picture, ()).pixels["pixel_values"]
    # transformers' torchvision class rescales and normalises in one step, which rounds otherwise.
    tolerance = {"rtol": 0, "atol": 0} if missing(["torchvision"]) else {}
    torch.testing.assert_close(pixels, official.preprocessing([picture]), **tolerance)
