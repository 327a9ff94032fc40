"""A picture's view holds what plain eager attention gives, by loops over rows and columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import eah
import models
from eval.analysis.picture import PictureView, view_picture
from eval.errors import EvaluationError
from models.base import VLM
from models.llava import Llava
from models.tokenizer import ChunkTokenizer
from tests.models.toys import FAMILIES, make_folder, pictures

TEXT = "Is there a cat in the image?"
TOLERANCE = 1e-5
CONFIGS = {
    "scale-free": eah.EAHConfig.preset("scale-free", layers=(1,)),
    "two layers": eah.EAHConfig(layers=(0, 1), threshold=0.01),
    "a head": eah.EAHConfig.preset("scale-free", layers=(1,), head=1),
}
Attentions = tuple[torch.Tensor, ...]


def deep_llava(tokenizer: ChunkTokenizer) -> VLM:
    """Return a random LLaVA of 8 layers whose heads differ."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=24, patch_size=4,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=640, hidden_size=64, intermediate_size=64, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=4, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(3)
    config = LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict())
    return Llava(LlavaForConditionalGeneration(config), tokenizer, protocol="opera")


@pytest.fixture(scope="module", params=["tiny-llava", "8 layers"])
def vlm(request: pytest.FixtureRequest) -> VLM:
    tiny = models.load("tiny-llava", device="cpu")
    return tiny if request.param == "tiny-llava" else deep_llava(tiny.tokenizer)


@torch.no_grad()
def attentions(vlm: VLM, image: Image.Image) -> tuple[Attentions, list[int]]:
    """Return the weights of the language model's own eager kernel, and the image tokens."""
    prompts = vlm.embed_prompts(vlm.encode_images([image]), [TEXT])
    before = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        with eah.image_tokens(vlm.model, prompts.image_mask):
            output = vlm.language_model(inputs_embeds=prompts.embeds, output_attentions=True)
    finally:
        vlm.model.set_attn_implementation(before)
    return output.attentions, prompts.image_mask[0].nonzero()[:, 0].tolist()


@torch.no_grad()
def eager_under_eah(vlm: VLM, image: Image.Image, config: eah.EAHConfig) -> Attentions:
    """Return the weights under EAH, whose layers an eager kernel runs."""
    before = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        prompts = vlm.embed_prompts(vlm.encode_images([image]), [TEXT])
        with (
            eah.enabled(vlm.model, config),
            eah.image_tokens(vlm.model, prompts.image_mask),
        ):
            output = vlm.language_model(inputs_embeds=prompts.embeds, output_attentions=True)
    finally:
        vlm.model.set_attn_implementation(before)
    return output.attentions


def means(weights: torch.Tensor, image: list[int]) -> np.ndarray[Any, Any]:
    """Return the mean attention that each image token receives in each head, by loops."""
    found = []
    for head in weights[0].tolist():
        row = []
        for y in image:
            received = [head[x][y] for x in range(y + 1, len(head))]
            row.append(sum(received) / len(received))
        found.append(row)
    return np.array(found)


def bounds(image: list[int], length: int, config: eah.EAHConfig) -> np.ndarray[Any, Any]:
    """Return the mean attention above which each image token is a sink."""
    even = [sum(1 / (x + 1) for x in range(y + 1, length)) / (length - 1 - y) for y in image]
    uniform = config.threshold_unit == "uniform"
    return config.threshold * (np.array(even) if uniform else np.ones(len(image)))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_number_is_that_of_plain_eager_attention(vlm: VLM, config: eah.EAHConfig) -> None:
    picture = pictures(1)[0]
    plain, image = attentions(vlm, picture)
    under = eager_under_eah(vlm, picture, config)
    length = plain[0].shape[-1]

    view = view_picture(vlm, picture, "a.jpg", TEXT, config, "a model")

    assert [layer.layer for layer in view.layers] == list(range(len(plain)))
    assert view.target == config.layers[0]
    bound = bounds(image, length, config)
    for layer in view.layers:
        own, changed = means(plain[layer.layer], image), means(under[layer.layer], image)
        assert np.abs(layer.before - own).max() <= TOLERANCE
        assert np.abs(layer.after - changed).max() <= TOLERANCE
        # A mean within rounding of the bound may be on either side.
        for sinks, of in ((layer.sinks_before, own), (layer.sinks_after, changed)):
            clear = np.abs(of - bound) > TOLERANCE * bound
            assert clear.mean() > 0.99
            assert ((sinks == (of > bound)) | ~clear).all()
        counts = layer.sinks_before.sum(-1)
        assert counts.any() == (layer.densest is not None)
        if layer.densest is not None:
            assert counts[layer.densest] == counts.max()
        assert (layer.shared is not None) == (layer.layer in config.layers)
        if config.head is not None and layer.shared is not None:
            assert layer.shared == config.head
    changed_layers = [
        layer.layer for layer in view.layers if not np.array_equal(layer.before, layer.after)
    ]
    assert changed_layers == list(range(config.layers[0], len(plain)))


def test_receivers_alone_change_in_the_target_layer(vlm: VLM) -> None:
    config = eah.EAHConfig.preset("scale-free", layers=(1,), receivers=1)

    view = view_picture(vlm, pictures(1)[0], "a.jpg", TEXT, config, "a model")

    target = view.layers[1]
    counts = target.sinks_before.sum(-1)
    receiver = int(np.argmin(counts))
    same = [np.array_equal(*maps) for maps in zip(target.before, target.after, strict=True)]
    assert target.shared is not None
    assert [head for head, is_same in enumerate(same) if not is_same] == [receiver]
    assert np.array_equal(target.after[receiver], target.before[target.shared])
    assert np.array_equal(target.sinks_after[receiver], target.sinks_before[target.shared])


def test_the_densest_head_is_shown_where_it_is_not_dense_enough_to_be_shared(vlm: VLM) -> None:
    plain = eah.EAHConfig.preset("scale-free", layers=(1,))

    found, dense = (
        view_picture(vlm, pictures(1)[0], "a.jpg", TEXT, config, "a model")
        for config in (plain, replace(plain, min_density=1.0))
    )

    assert found.layers[1].shared is not None
    assert dense.layers[1].shared is None
    for one, other in zip(found.layers, dense.layers, strict=True):
        assert one.densest == other.densest
        assert np.array_equal(other.before, other.after)
        assert np.array_equal(other.sinks_before, other.sinks_after)


def test_the_model_is_left_as_it_was(vlm: VLM) -> None:
    picture = pictures(1)[0]
    before = vlm.generate(picture, TEXT, max_new_tokens=4)

    view_picture(vlm, picture, "a.jpg", TEXT, CONFIGS["scale-free"], "a model")

    assert not eah.is_enabled(vlm.model)
    assert vlm.generate(picture, TEXT, max_new_tokens=4) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_models_are_viewed(family: str, tmp_path: Path) -> None:
    vlm = models.load(family, checkpoint=str(make_folder(family, tmp_path)), device="cpu")
    config = eah.EAHConfig.preset("scale-free", layers=(1,))

    view = view_picture(vlm, pictures(1)[0], "a.jpg", TEXT, config, family)

    _fits(view, vlm.num_image_tokens)
    assert view.grid == ((2, 2) if family in ("llava-1.5", "shikra") else None)


def _fits(view: PictureView, tokens: int) -> None:
    for layer in view.layers:
        for values in (layer.before, layer.after, layer.sinks_before, layer.sinks_after):
            assert values.shape[1] == tokens
        assert layer.before.dtype == layer.after.dtype == np.float32
        assert layer.sinks_before.dtype == layer.sinks_after.dtype == np.bool_
    assert view.grid is None or view.grid[0] * view.grid[1] == tokens


def test_a_prompt_without_image_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    monkeypatch.setattr(
        type(vlm),
        "embed_prompts",
        lambda self, features, questions, **_: self.embed_text(features, questions),
    )

    with pytest.raises(EvaluationError, match=r"picture a\.jpg: the prompt has no image tokens"):
        view_picture(vlm, pictures(1)[0], "a.jpg", TEXT, CONFIGS["scale-free"], "a model")
