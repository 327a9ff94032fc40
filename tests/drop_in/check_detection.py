"""Image tokens that the drop-in finds by their embeddings, in any transformers.

Run like check_drop_in.py, whose models and settings it uses. What was found is read from the log
of prompts (EAH_LOG), and the outputs are compared with those of a mask that the test gives.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from check_drop_in import (
    KERNELS,
    SPAN,
    VERSION,
    LlavaStyleForCausalLM,
    build,
    environment,  # noqa: F401  # a fixture for every test
    generated,
    logits,
    plain,  # noqa: F401  # a fixture
    prompts,
    tally,  # noqa: F401  # a fixture for every test
)
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

OURS = sys.modules["transformers.models.llama.modeling_llama_eah"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LENGTHS = [30, 24]


@pytest.fixture(autouse=True)
def log(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let image tokens be found, and return the log of prompts."""
    environment.delenv("EAH_IMAGE_SPAN")
    environment.setenv("EAH_LOG", str(tmp_path / "eah.jsonl"))
    return tmp_path / "eah.jsonl"


def spans(log: Path) -> list[Any]:
    """Return the image tokens of each prompt in the log."""
    return [json.loads(line)["image_spans"] for line in log.read_text().splitlines()]


def with_images(
    model: Any, lengths: list[int], span: tuple[int, int] = SPAN
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return embeddings of a left-padded batch with images in a span, its mask, and the images."""
    ids, mask = prompts(lengths)
    embeds = model.get_input_embeddings()(ids).detach()
    image = torch.zeros_like(mask, dtype=torch.bool)
    for row, length in enumerate(lengths):
        pad = max(lengths) - length
        image[row, pad + span[0] : pad + span[1]] = True
    noise = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(3))
    return torch.where(image[..., None], noise.to(embeds.dtype), embeds), mask, image


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_image_tokens_are_found_in_a_padded_batch(
    dtype: torch.dtype, kernel: str, log: Path
) -> None:
    model = build(kernel=kernel).to(dtype)
    embeds, mask, image = with_images(model, LENGTHS)

    found = logits(model, inputs_embeds=embeds, attention_mask=mask)

    assert spans(log) == [[list(SPAN)]] * 2
    with modeling_llama.image_tokens(image):
        expected = logits(model, inputs_embeds=embeds, attention_mask=mask)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_finds_them_once_for_each_prompt(kernel: str, beams: int, log: Path) -> None:
    model = build(LlavaStyleForCausalLM, kernel)
    embeds, mask, image = with_images(model, LENGTHS)

    def generate() -> Any:
        with torch.no_grad():
            return model.generate(inputs_embeds=embeds, attention_mask=mask, num_beams=beams,
                                  max_new_tokens=6, min_new_tokens=6, do_sample=False)  # fmt: skip

    found = generate()

    assert spans(log) == [[list(SPAN)]] * 2
    with modeling_llama.image_tokens(image):
        assert torch.equal(generate(), found)


@pytest.mark.parametrize("kernel", KERNELS)
def test_text_is_bitwise_the_originals(kernel: str, plain: Any, log: Path) -> None:
    """However long: a fixed span would take part of it for an image."""
    model = build(kernel=kernel, max_position_embeddings=1024)
    other = build(plain.LlamaForCausalLM, kernel, max_position_embeddings=1024)
    ids, mask = prompts([700, 650])
    embeds = model.get_input_embeddings()(ids).detach()

    for inputs in ({"input_ids": ids}, {"inputs_embeds": embeds}):
        found = logits(model, **inputs, attention_mask=mask)
        assert torch.equal(found, logits(other, **inputs, attention_mask=mask))
    assert spans(log) == []
    assert "0 prompts treated, 4 without image" in str(modeling_llama.TALLY)


def test_rows_of_a_batch_may_have_no_image(plain: Any, log: Path) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    embeds, mask, _ = with_images(model, LENGTHS)
    embeds[1] = model.get_input_embeddings()(prompts(LENGTHS)[0])[1].detach()

    found = logits(model, inputs_embeds=embeds, attention_mask=mask)
    expected = logits(other, inputs_embeds=embeds, attention_mask=mask)

    assert spans(log) == [[list(SPAN)]]
    assert torch.equal(found[1], expected[1])
    assert not torch.allclose(found[0], expected[0], atol=1e-3)


def test_two_images_and_any_place_are_found(log: Path) -> None:
    model = build()
    embeds, mask, _ = with_images(model, [40], (0, 10))
    embeds[:, 20:40] = torch.randn(1, 20, 32)

    logits(model, inputs_embeds=embeds, attention_mask=mask)

    assert spans(log) == [[[0, 10], [20, 40]]]


def test_zeros_are_padding_also_without_a_mask(log: Path) -> None:
    model = build()
    embeds, _, _ = with_images(model, [30])

    logits(model, inputs_embeds=torch.cat([embeds, torch.zeros(1, 5, 32)], 1))

    assert spans(log) == [[list(SPAN)]]


def test_a_prompt_of_unknown_rows_runs_without_eah_and_says_so_once(
    plain: Any,
    log: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    embeds = with_images(model, LENGTHS)[0] + 1e-3

    for _ in range(2):
        found = logits(model, inputs_embeds=embeds)
    assert torch.equal(found, logits(other, inputs_embeds=embeds))
    said = [line for line in capsys.readouterr().err.splitlines() if "no embedding of" in line]
    assert said == [
        "EAH: no embedding of a prompt is in the model's embedding table (noise on all of them?), "
        "so its image tokens are not known and it runs without EAH; give their positions with "
        "EAH_IMAGE_SPAN or image_tokens()"
    ]
    with modeling_llama.image_tokens(SPAN):
        shared = logits(model, inputs_embeds=embeds)
    assert not torch.allclose(shared, found, atol=1e-3)
    assert spans(log) == [[list(SPAN)]] * 2


@pytest.mark.parametrize("change", ["in place", "by data", "resized", "replaced"])
def test_a_table_that_changes_is_read_anew(change: str, log: Path) -> None:
    model = build()
    table = model.get_input_embeddings()
    logits(model, inputs_embeds=with_images(model, [30])[0])

    with torch.no_grad():
        if change == "in place":
            table.weight.mul_(0.5)
        elif change == "by data":
            table.weight.data[3:].add_(0.25)
        elif change == "resized":
            model.resize_token_embeddings(70)
        else:
            model.set_input_embeddings(copy.deepcopy(table))
            model.get_input_embeddings().weight.data.neg_()
    logits(model, inputs_embeds=with_images(model, [30])[0])

    assert spans(log) == [[list(SPAN)]] * 2


def test_a_table_in_another_precision_matches(log: Path) -> None:
    model = build()
    embeds, mask, _ = with_images(model.half(), LENGTHS)
    model.float()

    logits(model, inputs_embeds=embeds.float(), attention_mask=mask)

    assert spans(log) == [[list(SPAN)]] * 2


def test_an_image_that_is_split_over_passes_is_refused() -> None:
    model = build()
    embeds, _, _ = with_images(model, [30])

    with torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        with pytest.raises(RuntimeError, match="split over forward passes"):
            model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)


def test_an_image_behind_cached_text_is_found(log: Path) -> None:
    model = build()
    embeds, _, _ = with_images(model, [30], (12, 20))

    with torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)

    assert spans(log) == [[[12, 20]]]


def test_each_row_of_a_padded_batch_has_its_image_in_one_pass(log: Path) -> None:
    """In the first prompt it is cached, in the padded one it begins the second pass."""
    model = build()
    embeds, mask, _ = with_images(model, LENGTHS, (4, 10))

    with torch.no_grad():
        output = model(inputs_embeds=embeds[:, :10], attention_mask=mask[:, :10], use_cache=True)
        model(inputs_embeds=embeds[:, 10:], attention_mask=mask, use_cache=True,
              past_key_values=output.past_key_values)  # fmt: skip

    assert spans(log) == [[[4, 10]]] * 2


def test_a_pass_of_an_image_alone_behind_cached_text_is_found(log: Path) -> None:
    model = build()
    embeds, _, _ = with_images(model, [30], (10, 30))

    with torch.no_grad():
        past = model(inputs_embeds=embeds[:, :10], use_cache=True).past_key_values
        model(inputs_embeds=embeds[:, 10:], past_key_values=past, use_cache=True)

    assert spans(log) == [[[10, 30]]]


def test_text_behind_a_cached_image_is_untouched(log: Path, plain: Any) -> None:
    model, other = build(), build(plain.LlamaForCausalLM)
    embeds, _, _ = with_images(model, [30])
    turn, found = model.get_input_embeddings()(torch.arange(5, 9)[None]).detach(), []

    for decoder in (model, other):
        with torch.no_grad():
            past = model(inputs_embeds=embeds, use_cache=True).past_key_values
            found.append(decoder(inputs_embeds=turn, past_key_values=past, use_cache=True).logits)

    assert torch.equal(*found)
    assert spans(log) == [[list(SPAN)]] * 2


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("llava", (35, 611)),
        ("OPERA", (34, 610)),
        ("llava-hf", (5, 581)),
        ("shikra", (34, 290)),
        ("minigpt4", (8, 40)),
        ("2:9", (2, 9)),
    ],
)
def test_spans_have_names(
    name: str,
    span: tuple[int, int],
    environment: pytest.MonkeyPatch,
    log: Path,
) -> None:
    environment.setenv("EAH_IMAGE_SPAN", name)
    model = build(max_position_embeddings=1024)

    logits(model, input_ids=prompts([620])[0])

    assert spans(log) == [[list(span)]]


def test_inference_mode_and_copies_find_them(log: Path) -> None:
    model = build()
    embeds, mask, _ = with_images(model, LENGTHS)

    with torch.inference_mode():
        model(inputs_embeds=embeds, attention_mask=mask)
        twin = LlamaForCausalLM(model.config).eval()  # weights of inference mode count no versions
        twin.load_state_dict(model.state_dict())
        twin(inputs_embeds=embeds, attention_mask=mask)
    logits(copy.deepcopy(model), inputs_embeds=embeds, attention_mask=mask)

    assert spans(log) == [[list(SPAN)]] * 6


def test_a_compiled_model_finds_them(log: Path) -> None:
    model = build()
    embeds, mask, _ = with_images(model, LENGTHS)
    expected = logits(model, inputs_embeds=embeds, attention_mask=mask)
    torch._dynamo.reset()

    compiled = torch.compile(model, backend="eager")

    found = logits(compiled, inputs_embeds=embeds, attention_mask=mask)
    torch.testing.assert_close(found, expected)
    assert spans(log) == [[list(SPAN)]] * 4


@pytest.mark.parametrize("is_same", [True, False])
def test_another_prompt_within_generate_is_a_prompt_of_its_own(is_same: bool, log: Path) -> None:
    """Contrastive decoding asks one that is longer, of this model or of another one."""
    model = build()
    other = model if is_same else build()
    embeds, found = with_images(model, [60], (30, 50))[0], []
    expected = logits(other, inputs_embeds=embeds)

    def process(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not found:
            found.append(logits(other, inputs_embeds=embeds, use_cache=True))
        return scores

    with torch.no_grad():
        model.generate(inputs_embeds=with_images(model, [24])[0], max_new_tokens=3, do_sample=False,
                       logits_processor=[process])  # fmt: skip

    torch.testing.assert_close(found[0], expected)
    assert spans(log) == [[[30, 50]], [list(SPAN)], [[30, 50]]]


@pytest.mark.skipif(
    (4, 38) <= VERSION < (4, 42), reason="without a cache, these let a prompt see its answer"
)
def test_without_a_cache_a_prompt_counts_once(
    environment: pytest.MonkeyPatch,
    log: Path,
) -> None:
    environment.setenv("EAH_IMAGE_SPAN", "3:19")
    ids, mask = prompts(LENGTHS)

    generated(build(), ids, mask, use_cache=False)

    assert spans(log) == [[list(SPAN)]] * 2


@pytest.mark.parametrize("way", ["decoded", "copied", "tuple output"])
def test_a_second_image_behind_a_cache_is_refused_however_it_is_handed_on(way: str) -> None:
    model = build()
    embeds, _, _ = with_images(model, [30])

    with torch.no_grad():
        output = model(inputs_embeds=embeds, use_cache=True, return_dict=way != "tuple output")
        past = output[1]
        if way == "decoded":
            past = model(inputs_embeds=embeds[:, :1], past_key_values=past,
                         use_cache=True).past_key_values  # fmt: skip
        elif way == "copied":
            past = copy.deepcopy(past)
        with pytest.raises(RuntimeError, match=r"split over forward passes|EAH did not see"):
            model(inputs_embeds=embeds, past_key_values=past, use_cache=True)


def test_a_prompt_that_is_cut_behind_its_image_is_refused() -> None:
    """As by `prefill_chunk_size`: later rows would have to count, too."""
    model = build()
    embeds, _, _ = with_images(model, [30])
    generation = OURS.Generation(model, (1, 30), is_assisted=False, is_chunked=True)
    token = OURS._prompt_length.set(generation)

    try:
        with pytest.raises(RuntimeError, match="or text that follows them"):
            logits(model, inputs_embeds=embeds[:, :25])
    finally:
        OURS._prompt_length.reset(token)
