"""EAH through `model.generate`: batches, beams, caches, and one prompt at a time give the same."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedModel

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKEN, IMAGE_TOKENS, KERNELS, SPAN, tokens


def prompts_of_two_lengths() -> list[dict[str, torch.Tensor]]:
    """Return two prompts with an image each, the first six tokens shorter."""
    long = tiny.image_prompt()
    short = {**tiny.image_prompt(), "input_ids": torch.randint(3, 60, (1, 18))}
    short["input_ids"][:, 1 : 1 + IMAGE_TOKENS] = IMAGE_TOKEN
    return [short, long]


def left_padded(prompts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    width = max(prompt["input_ids"].shape[1] for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        length = prompt["input_ids"].shape[1]
        ids[row, width - length :] = prompt["input_ids"]
        mask[row, width - length :] = 1
    pixels = torch.cat([prompt["pixel_values"] for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def assert_eah_matters(
    model: PreTrainedModel, prompt: dict[str, torch.Tensor], got: torch.Tensor
) -> None:
    """Without this a comparison of generated tokens could hold because EAH did nothing."""
    assert not torch.equal(got, tokens(model, prompt))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_left_padded_batch_generates_what_its_prompts_do_alone(kernel: str, beams: int) -> None:
    model, prompts = tiny.tiny_llava(kernel), prompts_of_two_lengths()

    with eah.enabled(model, CONFIG) as handle:
        alone, reports = [], []
        for prompt in prompts:
            alone.append(tokens(model, prompt, num_beams=beams))
            reports.append(handle.report()[0])
        together = tokens(model, left_padded(prompts), num_beams=beams)

    assert torch.equal(together, torch.cat(alone))
    report = handle.report()[0]
    assert report.head == reports[0].head + reports[1].head
    assert report.counts == reports[0].counts + reports[1].counts
    assert len(report.head) == 2 * beams
    assert_eah_matters(model, left_padded(prompts), together)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_padded_prefill_has_the_logits_of_the_prompts_alone(kernel: str) -> None:
    model, prompts = tiny.tiny_llava(kernel), prompts_of_two_lengths()
    batch = left_padded(prompts)
    batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    with eah.enabled(model, CONFIG):
        alone = [tiny.logits(model, prompt)[0] for prompt in prompts]
        together = tiny.logits(model, batch)

    torch.testing.assert_close(together[0, 6:], alone[0])
    torch.testing.assert_close(together[1], alone[1])


@pytest.mark.parametrize("beams", [1, 3])
def test_beams_repeat_the_rows_of_a_mask(beams: int) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt(2)
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[0, 2:12], mask[1, 10:14] = True, True

    with eah.enabled(model, CONFIG) as handle:
        with eah.image_tokens(model, mask):
            together = tokens(model, prompt, num_beams=beams)
        report = handle.report()[0]
        alone = []
        for row in range(2):
            with eah.image_tokens(model, mask[row : row + 1]):
                inputs = {"input_ids": prompt["input_ids"][row : row + 1]}
                alone.append(tokens(model, inputs, num_beams=beams))

    assert report.image_tokens == (10,) * beams + (4,) * beams
    assert torch.equal(together, torch.cat(alone))
    assert_eah_matters(model, prompt, together)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_static_cache_generates_what_a_dynamic_one_does(kernel: str) -> None:
    model, prompt = tiny.tiny_llama(kernel), tiny.text_prompt()

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        dynamic = tokens(model, prompt)
        report = handle.report()
        static = tokens(model, prompt, cache_implementation="static")

    assert torch.equal(static, dynamic)
    assert handle.report() == report
    assert_eah_matters(model, prompt, static)


def test_embeddings_generate_what_their_ids_do() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt(2)
    embeds = model.get_input_embeddings()(prompt["input_ids"]).detach()
    mask = torch.ones(2, 24, dtype=torch.long)

    with eah.enabled(model, CONFIG), eah.image_tokens(model, SPAN):
        by_ids = tokens(model, prompt)
        by_embeds = tokens(model, {"inputs_embeds": embeds, "attention_mask": mask})

    assert torch.equal(by_embeds, by_ids)
    assert_eah_matters(model, prompt, by_embeds)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generating_without_a_cache_gives_what_generating_with_one_does(
    kernel: str, beams: int
) -> None:
    model, prompts = tiny.tiny_llava(kernel), prompts_of_two_lengths()
    prompt = left_padded(prompts)

    with eah.enabled(model, CONFIG) as handle:
        cached = tokens(model, prompt, num_beams=beams)
        report = handle.report()
        uncached = tokens(model, prompt, num_beams=beams, use_cache=False)

    assert torch.equal(uncached, cached)
    assert handle.report() == report
    assert_eah_matters(model, prompt, uncached)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("padding", [0, 1])
def test_a_prompt_after_cached_text_counts_what_the_whole_prompt_does(
    kernel: str, padding: int
) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)
    ids, pixels = prompt["input_ids"], prompt["pixel_values"]
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    # The rows that see the image are all in the second part.
    with torch.no_grad(), eah.enabled(model, CONFIG) as handle:
        model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
        whole = handle.report()
        cache = model(input_ids=ids[:, :2], attention_mask=mask[:, :2]).past_key_values
        model(
            input_ids=ids[:, 2:],
            pixel_values=pixels,
            attention_mask=mask,
            past_key_values=cache,
        )

    assert handle.report() == whole


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_image_in_the_second_part_of_a_prompt_is_found_there(cut: int) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True

    with torch.no_grad(), eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
        whole = model(input_ids=prompt["input_ids"]).logits
        expected = handle.report()
        first = model(input_ids=prompt["input_ids"][:, :cut], use_cache=True)
        assert handle.choices == {}
        assert handle.report()[0].skipped == (
            "the image tokens are not in this pass but in a later one"
        )
        cache = first.past_key_values
        second = model(input_ids=prompt["input_ids"][:, cut:], past_key_values=cache).logits

    assert handle.report() == expected
    if cut == 1:  # of more rows before the image, the first pass can't know the map to share
        torch.testing.assert_close(torch.cat([first.logits, second], 1), whole)


def test_text_behind_a_cached_image_is_left_as_it_is() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True
    cut = 21

    with torch.no_grad():
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
            cache = model(input_ids=prompt["input_ids"][:, :cut], use_cache=True).past_key_values
            assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)
            other = copy.deepcopy(cache)
            inside = model(input_ids=prompt["input_ids"][:, cut:], past_key_values=cache).logits
        outside = model(input_ids=prompt["input_ids"][:, cut:], past_key_values=other).logits

    assert torch.equal(inside, outside)
    assert handle.choices == {}
    assert "the image tokens are in the cache already" in (handle.report()[0].skipped or "")


@pytest.mark.parametrize("cut", [SPAN[0] + 1, 10, SPAN[1] - 1])
def test_an_image_that_is_split_over_passes_is_an_error(cut: int) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True

    with (
        eah.enabled(model, CONFIG),
        eah.image_tokens(model, mask),
        pytest.raises(eah.EAHStateError, match="image tokens are split over forward passes"),
    ):
        model(input_ids=prompt["input_ids"][:, :cut], use_cache=True)


@pytest.mark.parametrize("cut", [SPAN[0] + 1, 10, SPAN[1] - 1])
def test_placeholders_that_are_split_over_passes_are_an_error_in_the_second(cut: int) -> None:
    model, ids = tiny.tiny_llama(), tiny.text_prompt()["input_ids"]
    model.config.image_token_id = IMAGE_TOKEN
    ids[:, slice(*SPAN)] = IMAGE_TOKEN

    with torch.no_grad(), eah.enabled(model, CONFIG):
        cache = model(input_ids=ids[:, :cut], use_cache=True).past_key_values
        with pytest.raises(eah.EAHStateError, match="split over forward passes"):
            model(input_ids=ids[:, cut:], past_key_values=cache)


@pytest.mark.parametrize("name", ["generate_batch", "init_continuous_batching"])
def test_continuous_batching_is_refused_where_it_is_started(name: str) -> None:
    model = tiny.tiny_llama()
    if not hasattr(type(model), name):
        pytest.skip(f"this transformers has no {name}")

    eah.enable(model, CONFIG)
    with pytest.raises(eah.EAHStateError, match=f"{name} packs the prompts of many requests"):
        getattr(model, name)([[5, 6, 7]])
    eah.disable(model)

    assert getattr(model, name).__func__ is getattr(type(model), name)
