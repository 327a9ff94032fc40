"""What the benchmark runs on whole models is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eah
import models
from eah.find import attention_modules
from scripts.bench import counting
from scripts.bench.evaluation import OBJECTS, EvalShape, pope_arms
from scripts.bench.fresh import in_fresh_process
from scripts.bench.model import long_arms
from scripts.bench.released import LayerShape
from scripts.bench.released_model import SPAN, released_model
from scripts.bench.rows import Row, compared
from scripts.bench.vlm import MODELS, eah_config, make_vlm, reduced_config
from tests.models.toys import make_model, pictures

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_and_answers(name: str) -> None:
    vlm = make_vlm(name, CPU, make_model(name).config)
    features = vlm.encode_images(pictures(2))

    answers = vlm.answer_batch(features, ["Is there a cat?"] * 2, models.Decoding(3))

    assert [answer.tokens for answer in answers] == [3, 3]


def test_the_reduced_llava_has_the_papers_prompt_length_and_one_flat_head() -> None:
    config = reduced_config()
    text = config.text_config
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))
    features = vlm.encode_images(pictures(1))

    with eah.enabled(vlm.model, eah_config("llava-1.5")) as handle:
        vlm.answer_batch(features, ["Is there a cat?"], models.Decoding(1))

    assert (text.num_hidden_layers, text.hidden_size) == (8, 1024)
    assert (config.vision_config.image_size // config.vision_config.patch_size) ** 2 == 576
    assert handle.report()[0].image_tokens == (16,)


@torch.no_grad()
def test_a_released_model_computes_the_preset_released_code() -> None:
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))
    model = vlm.language_model
    attention_modules(model)[1].q_proj.weight *= 100  # else every column is a sink in every head
    torch.manual_seed(1)
    embeds = torch.randn(1, 640, 64)
    plain = model(inputs_embeds=embeds).logits

    with released_model(model):
        released = model(inputs_embeds=embeds).logits
    config = eah.EAHConfig.preset("released-code", layers=(1,))
    with eah.enabled(model, config) as handle:
        expected = model(inputs_embeds=embeds).logits

    assert handle.report()[0].head[0] is not None
    assert not torch.allclose(released, plain, atol=1e-3)
    torch.testing.assert_close(released, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(model(inputs_embeds=embeds).logits, plain)


def test_pope_is_run_in_every_way(tmp_path: Path) -> None:
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))
    shape = EvalShape(pictures=2, batch=6, answer=2)

    arms = pope_arms(vlm, eah_config("llava-1.5"), shape, tmp_path)

    # No released way: its columns reach past these prompts.
    assert set(arms) == {"baseline", "baseline, no reuse", "EAH", "EAH, no reuse"}
    assert all(arm()["questions/s"] > 0 for arm in arms.values())
    assert len(OBJECTS) == 6


def test_what_does_not_fit_is_infinite(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))
    arms = long_arms(vlm, eah_config("llava-1.5"), batch=1, length=SPAN[1])
    monkeypatch.setattr("scripts.bench.model.generate", no_memory)

    assert set(arms) == {"baseline", "EAH", "released way"}
    assert arms["released way"]()["peak memory, MiB"] == float("inf")


def test_arms_are_compared_round_by_round() -> None:
    rows = [
        Row("POPE", "questions/s", "a", (2.0, 9.0), ()),
        Row("POPE", "questions/s", "b", (1.0, 3.0), ()),
    ]

    assert compared(rows, [("a", "b"), ("a", "c")]) == [
        "POPE, questions/s: a is 2.50 (2.00..3.00) times b."
    ]


def test_memory_of_counting_grows_with_tokens_not_with_their_square() -> None:
    shapes = [LayerShape(heads=4, tokens=tokens, size=32) for tokens in (1024, 4096)]
    map_bytes = 4 * 4 * 4096 * 4096

    small, large = (in_fresh_process(counting, *shape.words) for shape in shapes)

    assert small < large < map_bytes / 4
    assert (counting.TOKENS[0], counting.TOKENS[-1]) == (640, 16384)
