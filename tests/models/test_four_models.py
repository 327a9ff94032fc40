"""All four wrappers alike, at toy size: loading, batches, EAH, what is passed to `generate`."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import eah
import models
from models.prompts import IMAGE
from tests.models.toys import (
    FAMILIES,
    IMAGE_TOKENS,
    QUESTIONS,
    make_folder,
    make_model,
    pictures,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("toys")
    return {family: make_folder(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, folders: dict[str, Path]) -> models.VLM:
    return models.load(request.param, checkpoint=str(folders[request.param]), device="cpu")


def test_every_weight_of_a_folder_is_loaded_bitwise(vlm: models.VLM) -> None:
    expected = make_model(vlm.family.name).state_dict()

    found = vlm.model.state_dict()

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(parameter.is_meta for parameter in vlm.model.parameters())
    assert not any(buffer.is_meta for buffer in vlm.model.buffers())


@pytest.mark.parametrize("method", ["baseline", "eah"])
@pytest.mark.parametrize("beams", [1, 3])
def test_six_in_a_batch_answer_as_six_alone(vlm: models.VLM, method: str, beams: int) -> None:
    decoding = models.Decoding(max_new_tokens=10, num_beams=beams)
    features = vlm.encode_images(pictures())
    preset = models.model_settings(vlm.family.name).eah["preset"]

    with (
        eah.enabled(vlm.model, eah.EAHConfig.preset(preset)) if method == "eah" else (nullcontext())
    ):
        together = vlm.answer_batch(features, QUESTIONS, decoding)
        alone = [
            vlm.answer_batch(features[i : i + 1], [question], decoding)[0]
            for i, question in enumerate(QUESTIONS)
        ]

    assert len({len(vlm.prompt_ids(question)) for question in QUESTIONS}) > 3
    assert len(set(together)) == len(QUESTIONS)
    assert together == alone


def test_eah_sees_the_image_tokens_of_every_row(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures())
    prompts = vlm.embed_prompts(features, QUESTIONS)
    count = IMAGE_TOKENS[vlm.family.name]
    pads = (prompts.attention_mask == 0).sum(-1).tolist()

    with eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free")) as handle:
        vlm.answer_batch(features, QUESTIONS, models.Decoding(max_new_tokens=2))
        report = handle.report()[0]

    assert report.image_tokens == (count,) * len(QUESTIONS)
    assert any(head is not None for head in report.head)
    embeds = vlm.image_embeds(features, QUESTIONS)
    for row, question in enumerate(QUESTIONS):
        first = pads[row] + vlm.prompt_ids(question).index(IMAGE)
        places = prompts.image_mask[row].nonzero().flatten().tolist()
        assert places == list(range(first, first + count))
        assert torch.equal(prompts.embeds[row, places], embeds[row])


def test_eah_changes_answers_and_leaves_no_trace(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures())
    decoding = models.Decoding(max_new_tokens=10)
    before = vlm.generate_batch(features, QUESTIONS, decoding)

    with eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free", layers=(1, 2))):
        during = vlm.generate_batch(features, QUESTIONS, decoding)

    assert during != before
    assert vlm.generate_batch(features, QUESTIONS, decoding) == before


@pytest.mark.parametrize("dtype", ["mixed", "float16", "bfloat16"])
def test_half_precision_runs_and_stays_near_float32(
    vlm: models.VLM, folders: dict[str, Path], dtype: str
) -> None:
    family = vlm.family.name
    half = models.load(family, checkpoint=str(folders[family]), device="cpu", dtype=dtype)
    expected = vlm.embed_prompts(vlm.encode_images(pictures()), QUESTIONS)

    with eah.enabled(half.model, eah.EAHConfig.preset("scale-free")):
        answers = half.generate_batch(half.encode_images(pictures()), QUESTIONS, models.Decoding(8))
    found = half.embed_prompts(half.encode_images(pictures()), QUESTIONS)

    assert len(answers) == len(QUESTIONS)
    error = (found.embeds.float() - expected.embeds).abs().mean() / expected.embeds.abs().mean()
    assert 0 < error < (0.05 if dtype == "bfloat16" else 0.006)


def test_weights_of_mixed_precision_are_the_reference_wrappers(folders: dict[str, Path]) -> None:
    def dtypes(family: str) -> dict[str, torch.dtype]:
        loaded = models.load(family, checkpoint=str(folders[family]), device="cpu", dtype="mixed")
        return {name: tensor.dtype for name, tensor in loaded.model.named_parameters()}

    half, full = torch.float16, torch.float32
    assert set(dtypes("llava-1.5").values()) == {half}
    shikra = dtypes("shikra")
    assert {dtype for name, dtype in shikra.items() if "vision_tower" in name} == {half}
    assert {dtype for name, dtype in shikra.items() if "vision_tower" not in name} == {full}
    for family in ("instructblip", "minigpt4"):
        found = dtypes(family)
        assert found["vision_model.encoder.layers.0.self_attn.qkv.weight"] is half
        assert found["vision_model.encoder.layers.0.layer_norm1.weight"] is full
        assert found["vision_model.embeddings.class_embedding"] is full
        assert found["qformer.encoder.layer.0.attention.attention.query.weight"] is full
        assert found["language_projection.weight"] is full
        assert found["language_model.model.layers.0.mlp.up_proj.weight"] is half


def test_mixed_precision_makes_instructblips_prompt_float32_and_minigpt4s_float16(
    folders: dict[str, Path],
) -> None:
    found = {}
    for family in FAMILIES:
        vlm = models.load(family, checkpoint=str(folders[family]), device="cpu", dtype="mixed")
        embeds = vlm.embed_prompts(vlm.encode_images(pictures(1)), QUESTIONS[:1]).embeds
        found[family] = embeds.dtype

    assert found == {
        "llava-1.5": torch.float16,
        "instructblip": torch.float32,
        "minigpt4": torch.float16,
        "shikra": torch.float32,
    }


def test_a_model_spread_over_devices_answers_the_same(
    vlm: models.VLM, folders: dict[str, Path]
) -> None:
    family = vlm.family.name
    spread = models.load(family, checkpoint=str(folders[family]), device="auto", dtype="float32")
    decoding = models.Decoding(max_new_tokens=6)

    assert spread.generate_batch(
        spread.encode_images(pictures()), QUESTIONS, decoding
    ) == vlm.generate_batch(vlm.encode_images(pictures()), QUESTIONS, decoding)


def test_a_wrapper_survives_deepcopy(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures(1))
    twin = copy.copy(vlm)
    twin.model = copy.deepcopy(vlm.model)
    decoding = models.Decoding(max_new_tokens=4)

    assert twin.generate_batch(features, QUESTIONS[:1], decoding) == vlm.generate_batch(
        features, QUESTIONS[:1], decoding
    )


@pytest.mark.parametrize("half", ["\ud800", "what \udcff"])
def test_half_of_a_surrogate_pair_is_no_prompt(vlm: models.VLM, half: str) -> None:
    said = "the prompt contains half of a surrogate pair"
    features = vlm.encode_images(pictures(1))
    for ask in (
        lambda: vlm.generate(pictures(1)[0], half),
        lambda: vlm.generate_batch(features, [half], models.Decoding(max_new_tokens=1)),
        lambda: vlm.prompt_ids(half),
        lambda: vlm.shown_prompt(half, pictures(1)[0]),
    ):
        with pytest.raises(models.ModelError, match=said):
            ask()
    assert vlm.prompt_ids("\U0001f600")  # a whole pair
