"""What the benchmark runs on whole models is what it says."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import eah
import models
from eah.find import attention_modules
from scripts.bench import counting, evaluation, sections, sizes
from scripts.bench.evaluation import OBJECTS, EvalShape, chair_arms, pope_arms
from scripts.bench.fresh import run_in_fresh_process
from scripts.bench.model import map_gib
from scripts.bench.released import LayerShape
from scripts.bench.released_model import released_model
from scripts.bench.rows import Row, compare_arms
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

    asked = pope_arms(vlm, eah_config("llava-1.5"), shape, tmp_path)

    # No released way: its columns reach past these prompts.
    assert set(asked.arms) == {"baseline", "baseline, no reuse", "EAH", "EAH, no reuse"}
    assert all(arm()["questions/s"] > 0 for arm in asked.arms.values())
    assert asked.notes == {}
    assert len(OBJECTS) == 6


@pytest.mark.parametrize(("released", "count"), [((5, 1), 5), ((99, 9), 12)])
def test_the_released_way_is_asked_a_few_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: tuple[int, int], count: int
) -> None:
    """Its speed is that of those; the columns that it needs are not part of this test."""
    monkeypatch.setattr(evaluation, "SPAN", (2, 10))
    monkeypatch.setattr(evaluation, "released_model", lambda _: nullcontext())
    now = iter([0.0, 4.0])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(now))
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))
    shape = EvalShape(pictures=2, batch=6, answer=2, caption=2, released=released)
    seen: list[int] = []
    own = vlm.answer_batch
    monkeypatch.setattr(vlm, "answer_batch", lambda *given: seen.append(1) or own(*given))

    asked = pope_arms(vlm, eah_config("llava-1.5"), shape, tmp_path)

    assert asked.arms["released way"]() == {"questions/s": count / 4}
    assert len(seen) == count
    note = {"released way": f"from {count} of 12 questions"} if count < 12 else {}
    assert asked.notes == note
    captions = chair_arms(vlm, eah_config("llava-1.5"), shape, tmp_path).notes
    assert captions == ({"released way": "from 1 of 2 captions"} if count < 12 else {})


@pytest.mark.parametrize(("most", "arms"), [(1e-9, 2), (1.0, 3)])
def test_maps_that_take_minutes_are_left_out(
    monkeypatch: pytest.MonkeyPatch, most: float, arms: int
) -> None:
    monkeypatch.setattr(sections, "MOST_MAPS_GIB", most)
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))

    (measured,) = sections.time_long_prompts(sizes.TINY, vlm, "llava-1.5")

    assert len(measured.arms) + len(measured.left_out) == 3
    assert len(measured.arms) == arms


def test_sizes_of_maps() -> None:
    """Of 4 prompts of 8192 tokens, in 32 heads of LLaVA-1.5-7B, in float32."""
    vlm = make_vlm("llava-1.5", CPU, reduced_config(tiny=True))  # 4 heads

    assert map_gib(vlm, batch=4, length=8192) * 8 == 4 * 32 * 8192 * 8192 * 4 / 2**30 == 32


def test_arms_are_compared_round_by_round() -> None:
    rows = [
        Row("POPE", "questions/s", "a", (2.0, 9.0), ()),
        Row("POPE", "questions/s", "b", (1.0, 3.0), ()),
    ]

    assert compare_arms(rows, [("a", "b"), ("a", "c")]) == [
        "POPE, questions/s: a is 2.50 (2.00..3.00) times b."
    ]


def test_memory_of_counting_grows_with_tokens_not_with_their_square() -> None:
    shapes = [LayerShape(heads=4, tokens=tokens, size=32) for tokens in (1024, 4096)]
    map_bytes = 4 * 4 * 4096 * 4096

    small, large = (run_in_fresh_process(counting, *shape.words) for shape in shapes)

    assert small < large < map_bytes / 4
    assert (counting.TOKENS[0], counting.TOKENS[-1]) == (640, 16384)
