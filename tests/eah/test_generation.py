"""EAH through `model.generate`: batches, beams, caches, and one prompt at a time give the same."""

from __future__ import annotations

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


def test_generating_without_a_cache_is_eah_at_every_step() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG):
        generated = tokens(model, prompt, use_cache=False)
        ids = torch.cat([prompt["input_ids"], generated], 1)
        steps = [
            tiny.logits(model, {**prompt, "input_ids": ids[:, : 24 + step]})[:, -1, :IMAGE_TOKEN]
            for step in range(6)
        ]

    assert torch.equal(generated[0], torch.cat(steps).argmax(-1))


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


@pytest.mark.parametrize("cut", [2, 10, 21])
def test_an_image_in_the_second_chunk_of_a_prompt_is_found_there(cut: int) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True

    with torch.no_grad(), eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
        first = model(input_ids=prompt["input_ids"][:, :cut], use_cache=True)
        in_first = [report.image_tokens for report in handle.report()]
        model(input_ids=prompt["input_ids"][:, cut:], past_key_values=first.past_key_values)
        in_both = [report.image_tokens for report in handle.report()]

    # A chunk without image tokens of its own is left alone, and the report is of the last with.
    assert in_first == ([] if cut == 2 else [(min(cut, SPAN[1]) - SPAN[0],)])
    assert in_both == [(IMAGE_TOKENS,)]
