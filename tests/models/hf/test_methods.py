"""Methods that change attention or read layers, with prompts as embeddings and as ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

import models
from eah.find import attention_modules
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from models.hf import HFVlm
from models.prompt_images import current_images
from tests.models.hf.conftest import Wrap
from tests.models.hf.test_wrapper import QUESTIONS, features

# Decoders that get ids, with positions of several axes and masks of their own; one with embeddings.
FAMILIES = ("qwen2.5-vl", "paligemma", "blip-2", "llava-next")
MAKE: dict[str, Callable[[int], DecodingMethod]] = {
    "hgai": lambda last: Hgai((last,), alpha=5.0),
    "vaf": lambda last: Vaf((last,), enhance=3.0, suppress=0.1),
    "spin": lambda last: Spin((last,), kept=0.5, scale=0.0),
    "var": lambda _: Var((1,), tau=1.0, rho=1.0, summ=0.0, p=0.0, start_layer=0),
    "deco": lambda last: Deco((last,), alpha=5.0),
}


def last_layer(vlm: HFVlm) -> int:
    return max(attention_modules(vlm.model))


@pytest.mark.parametrize("method", MAKE)
@pytest.mark.parametrize("name", FAMILIES)
def test_batches_answer_as_one_by_one_and_not_as_the_baseline(
    name: str, method: str, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm, decoding = wrap(name), models.Decoding(6)
    chosen, shown = MAKE[method](last_layer(vlm)), features(vlm, pictures)

    together = vlm.answer_batch(shown, QUESTIONS, decoding, chosen)
    alone = [
        vlm.answer_batch([picture], [question], decoding, chosen)[0]
        for picture, question in zip(shown, QUESTIONS, strict=True)
    ]

    assert together == alone
    assert together != vlm.answer_batch(shown, QUESTIONS, decoding)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_image_tokens_are_those_of_the_ids(
    name: str, wrap: Wrap, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, seen = wrap(name), []
    edit = Hgai.edit

    def spied(self: Hgai, rows: object) -> torch.Tensor:
        images = current_images()
        assert images is not None
        seen.append(images.mask.sum(-1).tolist())
        return edit(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Hgai, "edit", spied)
    shown = features(vlm, pictures)
    vlm.answer_batch(shown, QUESTIONS, models.Decoding(1), Hgai((last_layer(vlm),)))

    expected = []
    for picture, question in zip(shown, QUESTIONS, strict=True):
        ids = vlm.chat.prepare_text(picture.prepared, question)["input_ids"][0].tolist()
        expected.append(sum(ids.count(id_) for id_ in vlm._image_ids.tolist()))
    assert seen[0] == expected
    assert min(expected) > 1


@pytest.mark.parametrize("name", ["gemma3", "aya-vision"])
def test_layers_that_drop_tokens_are_refused_by_name(
    name: str, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm = wrap(name)

    with pytest.raises(MethodError, match=r"HGAI: layer 0 has \d+ keys for \d+ tokens"):
        vlm.answer_batch(features(vlm, pictures), QUESTIONS, models.Decoding(2), Hgai((0,)))


def test_a_model_that_names_no_image_token_is_refused(
    wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrap("qwen2.5-vl")
    monkeypatch.setattr(vlm, "_image_ids", torch.tensor([], dtype=torch.long))

    with pytest.raises(MethodError, match="SPIN needs to know the image tokens, but the config"):
        vlm.check_method(Spin())
