"""The LLaVA-1.5 wrapper on the embedded checkpoint: features, batches, decoding, loading."""

from __future__ import annotations

import json
import random
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import eah
import models
from eval.tasks.chair.vocabulary import load_vocabulary
from eval.tasks.judge.config import read_config
from models.generation import Answer
from models.methods import read_methods
from models.prompts import IMAGE
from scripts.scenes.scene import render
from scripts.scenes.text import QUESTION_DESCRIBE

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models/tiny-llava"
QUESTIONS = [
    "Is there a cat in the image?",
    "Is there a traffic light in the image?",
    QUESTION_DESCRIBE,
    "Is there an apple in the image?",
    "What is there, and what is it next to?",
    "Is there a bird?",
    "Is there a sports ball or a stop sign in the image?",
    "?",
]


@pytest.fixture(scope="module")
def vlm() -> models.VLM:
    return models.load("tiny-llava", device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [render(random.Random(seed)).image for seed in range(len(QUESTIONS))]


def test_features_equal_transformers_own(vlm: models.VLM, pictures: list[Image.Image]) -> None:
    pixels = vlm.preprocess(pictures[:2])
    with torch.inference_mode():
        output = vlm.model.get_image_features(pixel_values=pixels)
    # transformers 5 wraps the list of features in an output object
    expected = torch.stack(list(getattr(output, "pooler_output", output)))

    assert torch.equal(vlm.encode_images(pictures[:2]), expected)


def test_answers_equal_transformers_own_path(vlm: models.VLM, pictures: list[Image.Image]) -> None:
    """The same prompt through input_ids and pixel_values, as transformers' users run LLaVA."""
    ids = vlm.prompt_ids(QUESTIONS[0])
    place = ids.index(IMAGE)
    full = [*ids[:place], *[vlm.model.config.image_token_id] * 64, *ids[place + 1 :]]
    for config in (None, eah.EAHConfig.preset("scale-free")):
        context = torch.inference_mode() if config is None else eah.enabled(vlm.model, config)
        with context:
            output = vlm.model.generate(
                input_ids=torch.tensor([full]),
                attention_mask=torch.ones(1, len(full), dtype=torch.long),
                pixel_values=vlm.preprocess(pictures[:1]),
                max_new_tokens=20,
                do_sample=False,
            )
            text = vlm.generate(pictures[0], QUESTIONS[0], models.Decoding(max_new_tokens=20))

        assert vlm.tokenizer.decode(output[0, len(full) :].tolist()).strip() == text


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("preset", [None, "paper", "scale-free"])
def test_a_padded_batch_gives_what_single_prompts_give(
    vlm: models.VLM, pictures: list[Image.Image], preset: str | None, beams: int
) -> None:
    decoding = models.Decoding(max_new_tokens=16, num_beams=beams)
    features = vlm.encode_images(pictures)

    def answers() -> tuple[list[str], list[str]]:
        together = vlm.generate_batch(features, QUESTIONS, decoding)
        alone = [
            vlm.generate_batch(features[i : i + 1], [question], decoding)[0]
            for i, question in enumerate(QUESTIONS)
        ]
        return together, alone

    if preset is None:
        together, alone = answers()
    else:
        with eah.enabled(vlm.model, eah.EAHConfig.preset(preset)):
            together, alone = answers()

    assert together == alone


def test_image_tokens_lie_in_their_place_in_every_padded_row(
    vlm: models.VLM, pictures: list[Image.Image]
) -> None:
    features = vlm.encode_images(pictures[:2])
    prompts = vlm.embed_prompts(features, [QUESTIONS[0], QUESTIONS[2]])
    pads = (prompts.attention_mask == 0).sum(-1).tolist()

    assert sorted(pads)[0] == 0 < sorted(pads)[1]
    for row, pad in enumerate(pads):
        first = pad + vlm.prompt_ids("").index(IMAGE)
        assert prompts.image_mask[row].nonzero().flatten().tolist() == list(
            range(first, first + 64)
        )
        assert torch.equal(prompts.embeds[row, first : first + 64], features[row])


def test_sampling_follows_the_seed(vlm: models.VLM, pictures: list[Image.Image]) -> None:
    decoding = models.Decoding(max_new_tokens=24, do_sample=True, temperature=3.0)
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(vlm.generate(pictures[0], QUESTION_DESCRIBE, decoding))

    assert texts[0] == texts[1] != texts[2]


def test_protocol_official_pads_where_opera_crops(pictures: list[Image.Image]) -> None:
    wide = Image.new("RGB", (200, 100), (255, 0, 0))
    wide.paste((0, 0, 255), (50, 0, 150, 100))  # red sides, blue middle
    opera = models.load("tiny-llava", device="cpu", protocol="opera").preprocess([wide])
    llava = models.load("tiny-llava", device="cpu", protocol="official").preprocess([wide])

    middle = opera.shape[-1] // 2
    assert opera[0, 2, middle, 2] == opera[0, 2, middle, middle]  # the sides are cropped away
    assert llava[0, 0, middle, 2] > llava[0, 0, middle, middle]  # the red side is there
    # (122, 116, 104) is the mean colour, so padding is nearly zero after normalisation
    assert llava[0, :, 2, middle].abs().max() < 0.02


def test_text_ends_at_the_stop_text(vlm: models.VLM) -> None:
    ids = vlm.tokenizer.encode("Yes, there is. ### Human")

    assert vlm._answer([*ids, vlm.tokenizer.eos_id(), *ids]) == Answer(
        "Yes, there is.",
        True,
        len(ids) + 1,
    )
    assert vlm._answer(ids) == Answer("Yes, there is.", True, len(ids))


def test_text_without_an_end_is_not_finished(vlm: models.VLM) -> None:
    ids = vlm.tokenizer.encode("Yes, there")

    assert vlm._answer(ids) == Answer("Yes, there", False, len(ids))
    ended = [*ids, vlm.tokenizer.eos_id(), 0, 0]
    assert vlm._answer(ended) == Answer("Yes, there", True, len(ids) + 1)
    assert vlm._answer([*ids, 0, 0]) == Answer("Yes, there", False, len(ids))


def copy_of_tiny(folder: Path) -> Path:
    shutil.copytree(TINY, folder)
    return folder


def test_a_folder_with_tokenizer_json_only_loads(
    vlm: models.VLM, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    folder = copy_of_tiny(tmp_path / "saved")
    (folder / "tokenizer.model").unlink()

    other = models.load("tiny-llava", checkpoint=str(folder), device="cpu")

    assert other.prompt_ids(QUESTIONS[0]) == vlm.prompt_ids(QUESTIONS[0])
    assert other.generate(pictures[0], QUESTIONS[0]) == vlm.generate(pictures[0], QUESTIONS[0])


def break_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_vl"}))


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").unlink()


def break_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("linear_1.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def break_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("linear_1.weight"))
    weights[name] = weights[name][:5].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def break_file(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, "has no config.json"),
        (break_type, "model_type 'qwen2_vl' in its config.json, but this model needs 'llava'"),
        (break_json, "is not whole JSON"),
        (break_tokenizer, "has no tokenizer.model and no tokenizer.json"),
        (break_weights, r"lacks model.multi_modal_projector.linear_1.weight; it is incomplete"),
        (
            break_shape,
            r"linear_1.weight of (shape \(5, 96\), but the model needs \(128|another shape)",
        ),
        (break_file, "can't be read .*truncated"),
        (remove_weights, "contains no weights"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path: Path, damage: object, message: str) -> None:
    folder = copy_of_tiny(tmp_path / "copy")
    damage(folder)  # type: ignore[operator]

    with pytest.raises(models.ModelError, match=message):
        models.load("tiny-llava", checkpoint=str(folder), device="cpu")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tiny-lava", {}, "model 'tiny-lava' is unknown: did you mean 'tiny-llava'"),
        ("tiny-llava", {"checkpoint": "no such folder"}, "is not a file, folder or hub id"),
        ("tiny-llava", {"protocol": "officials"}, "did you mean 'official'"),
        ("tiny-llava", {"device": "cuda:99"}, "GPU 99 does not exist; this machine has"),
        ("tiny-llava", {"device": "tpu:x"}, "device 'tpu:x' is unknown"),
        ("tiny-llava", {"dtype": "float12"}, "dtype 'float12' is unknown"),
    ],
)
def test_bad_arguments_are_refused(name: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(models.ModelError, match=message):
        models.load(name, **arguments)


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub.\nMore lines.")

    monkeypatch.setattr("transformers.utils.cached_file", offline)
    with pytest.raises(models.ModelError, match="could not be fetched from the hub") as error:
        models.load("llava-1.5", device="cpu")

    assert "\n" not in str(error.value)


def test_identity_changes_with_the_weights(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path / "copy")
    before = models.describe("tiny-llava", checkpoint=str(folder), device="cpu").weights
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor * 1.5 for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    after = models.describe("tiny-llava", checkpoint=str(folder), device="cpu").weights

    assert before == models.describe("tiny-llava", device="cpu").weights
    assert before != after


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_used_by_a_loader(path: Path) -> None:
    if path.stem == "paper":
        published = models.settings.read_yaml(path)
        others = {"llava-next", "qwen-vl"}  # published, and run by their checkpoints
        assert {*published["pope"], *published["chair"]} - others <= set(models.available())
    elif path.stem == "methods":
        assert set(read_methods()) >= {"opera", "vcd", "dola", "pai"}
    elif path.stem == "chair_objects":
        assert "dog" in load_vocabulary().object_of
    elif path.stem == "judge":
        assert read_config(path, {}).price is not None
    else:
        settings = models.model_settings(path.stem)
        assert eah.EAHConfig.preset(settings.eah["preset"])
        assert settings.protocol == ("chat" if path.stem == "hf" else "opera")
        assert models.wrapper_of(settings).family.name in path.stem or path.stem == "tiny-llava"


@pytest.mark.gpu
@pytest.mark.parametrize("preset", [None, "scale-free"])
def test_a_gpu_answers_as_the_cpu_does(
    vlm: models.VLM, pictures: list[Image.Image], preset: str | None
) -> None:
    on_gpu = models.load("tiny-llava", device="cuda:0", dtype="float32")
    decoding = models.Decoding(max_new_tokens=16)
    answers = []
    for model in (vlm, on_gpu):
        config = eah.EAHConfig.preset(preset or "paper")
        with eah.enabled(model.model, config) if preset else nullcontext():
            features = model.encode_images(pictures)
            answers.append(model.generate_batch(features, QUESTIONS, decoding))

    assert answers[0] == answers[1]


def test_a_first_use_takes_files_arrays_and_settings_by_name(
    vlm: models.VLM, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "cat.png"
    pictures[0].save(path)
    decoding = models.Decoding(max_new_tokens=4, num_beams=2)
    expected = vlm.generate(pictures[0], QUESTION_DESCRIBE, decoding)
    features = vlm.encode_images([pictures[0]])
    assert [expected] == vlm.generate_batch(features, [QUESTION_DESCRIBE], decoding)
    assert expected != vlm.generate(pictures[0], QUESTION_DESCRIBE, max_new_tokens=9)

    for picture in (path, str(path), np.asarray(pictures[0])):
        said = vlm.generate(picture, QUESTION_DESCRIBE, max_new_tokens=4, num_beams=2)
        assert said == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_tokens": 5}, "setting 'max_tokens' is unknown: did you mean 'max_new_tokens'"),
        ({"beams": 5}, "setting 'beams' is unknown: did you mean 'num_beams'"),
        ({"max_new_tokens": 0}, "max_new_tokens=0, but at least 1 is needed"),
        ({"max_new_tokens": "50"}, "max_new_tokens='50', but an int is needed"),
        ({"num_beams": 2.0}, "num_beams=2.0, but an int is needed"),
        ({"decoding": 50}, "decoding=50; pass a Decoding, or settings by name: max_new_tok"),
        (
            {"decoding": models.Decoding(), "num_beams": 2},
            "a Decoding and num_beams were passed; pass one Decoding with all settings",
        ),
        ({"question": " "}, "question ' '; pass a text, such as 'What is this"),
        ({"question": None}, "question None; pass a text"),
        ({"image": "no.jpg"}, "picture no.jpg can't be read"),
    ],
)
def test_a_wrong_argument_of_generate_is_one_sentence(
    vlm: models.VLM, pictures: list[Image.Image], arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(models.ModelError, match=f"^{re.escape(sentence)}[^\n]*$"):
        vlm.generate(**{"image": pictures[0], "question": "What is this?", **arguments})


def test_eah_takes_the_wrapper_itself(vlm: models.VLM, pictures: list[Image.Image]) -> None:
    config = eah.EAHConfig.preset("scale-free")
    plain = vlm.generate(pictures[0], QUESTIONS[0])

    with eah.enabled(vlm.model, config) as handle:
        expected = vlm.generate(pictures[0], QUESTIONS[0]), handle.report()
    handle = eah.enable(vlm, config)
    with eah.observe(vlm) as seen:
        found = vlm.generate(pictures[0], QUESTIONS[0]), handle.report()

    assert found == expected
    assert handle.report()[0].head[0] is not None
    text = vlm.language_model.config.get_text_config()
    assert len(seen.report()) == text.num_hidden_layers
    with eah.image_tokens(vlm, (1, 4)), eah.prompt_length(vlm, 6):
        vlm.language_model(inputs_embeds=torch.randn(1, 8, text.hidden_size))
    assert handle.report()[0].image_tokens == (3,)
    eah.disable(vlm)
    assert not eah.is_enabled(vlm.model)
    assert vlm.generate(pictures[0], QUESTIONS[0]) == plain
