"""8-bit and 4-bit language models, where bitsandbytes is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eah
import models
from tests.models.toys import QUESTIONS, make_folder, pictures

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module", params=["llava-1.5", "instructblip"])
def family_and_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, make_folder(request.param, tmp_path_factory.mktemp("toy") / "model")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_only_the_language_models_layers_are_quantised(
    family_and_folder: tuple[str, Path], kind: str
) -> None:
    layers = pytest.importorskip("bitsandbytes").nn
    quantised = {"8bit": layers.Linear8bitLt, "4bit": layers.Linear4bit}[kind]
    family, folder = family_and_folder

    vlm = models.load(family, checkpoint=str(folder), device=DEVICE, quantization=kind)
    plain = models.load(family, checkpoint=str(folder), device=DEVICE)

    found = {name for name, module in vlm.model.named_modules() if isinstance(module, quantised)}
    assert len(found) == 3 * 7  # layers x projections
    assert all("language_model" in name for name in found)
    expected = plain.embed_prompts(plain.encode_images(pictures()), QUESTIONS)
    prompts = vlm.embed_prompts(vlm.encode_images(pictures()), QUESTIONS)
    assert torch.equal(prompts.embeds, expected.embeds)
    for name in found:
        x = torch.randn(8, vlm.model.get_submodule(name).in_features, device=DEVICE)
        with torch.inference_mode():
            exact = plain.model.get_submodule(name)(x)
            error = (vlm.model.get_submodule(name)(x) - exact).norm() / exact.norm()
        assert 0 < error < {"8bit": 0.02, "4bit": 0.15}[kind]


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_eah_works_on_a_quantised_model(family_and_folder: tuple[str, Path], kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    family, folder = family_and_folder
    vlm = models.load(family, checkpoint=str(folder), device=DEVICE, quantization=kind)

    with eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free")) as handle:
        answers = vlm.generate_batch(vlm.encode_images(pictures()), QUESTIONS, models.Decoding(4))

    assert len(answers) == len(QUESTIONS)
    assert any(head is not None for head in handle.report()[0].head)


def test_bad_quantisation_is_refused(
    family_and_folder: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, folder = family_and_folder
    load = {"checkpoint": str(folder), "device": "cpu"}
    with pytest.raises(models.ModelError, match="quantization '3bit' is unknown; use 8bit or 4bit"):
        models.load(family, **load, quantization="3bit")
    with pytest.raises(
        models.ModelError, match="with device auto: a quantized 7B model fits on one"
    ):
        models.load(family, checkpoint=str(folder), device="auto", quantization="4bit")
    monkeypatch.setattr("models.precision.find_spec", lambda _: None)
    with pytest.raises(models.ModelError, match="needs bitsandbytes, which is not installed"):
        models.load(family, **load, quantization="4bit")
