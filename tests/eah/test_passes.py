"""Which forward passes are prompts, which are decode steps, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits, tokens


def embedded(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model.get_input_embeddings()(ids).detach()


@torch.no_grad()
def generated_logits(model: Any, inputs: dict[str, torch.Tensor], answer: torch.Tensor) -> Any:
    """Return the logits of feeding an answer token by token behind a cached prompt."""
    output = model(**inputs, use_cache=True)
    found = [output.logits[:, -1:]]
    mask = inputs.get("attention_mask")
    for at in range(answer.shape[1] - 1):
        step: dict[str, Any] = {"input_ids": answer[:, at : at + 1]}
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            step["attention_mask"] = mask
        output = model(**step, past_key_values=output.past_key_values, use_cache=True)
        found.append(output.logits)
    return torch.cat(found, dim=1)


def assert_as_close(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> None:
    """Compare logits that two ways compute, given how far apart these are in the plain model."""
    drift = plain.abs().max().item()
    assert 0 < drift < 1e-3
    assert (found - expected).abs().max().item() <= 4 * drift


# Answers in the pass of the prompt ----------------------------------------------------------------


@pytest.mark.parametrize("kernel", tiny.KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("make", [lambda: tiny.text_prompt(2), tiny.padded_prompt])
def test_generation_without_a_cache_is_generation_with_it(
    kernel: str, beams: int, make: Callable[[], dict[str, torch.Tensor]]
) -> None:
    prompt, model = make(), tiny.tiny_llama(kernel)

    with eah.enabled(model, CONFIG), eah.image_tokens(model, (6, 18)):
        cached = tokens(model, prompt, num_beams=beams)
        assert torch.equal(tokens(model, prompt, num_beams=beams, use_cache=False), cached)
    assert not torch.equal(tokens(model, prompt, num_beams=beams), cached)  # EAH matters here


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_assisted_generation_and_prompt_lookup_give_the_same_tokens(kernel: str) -> None:
    model, helper, prompt = tiny.tiny_llama(kernel), tiny.tiny_llama(kernel), tiny.text_prompt()
    prompt["input_ids"][:, 19:] = prompt["input_ids"][:, 9:14]  # something to look up

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, (2, 12)):
        ends = {"eos_token_id": 1}  # transformers 4 needs one here
        expected = tokens(model, prompt, **ends)
        report = handle.report()
        assert torch.equal(tokens(model, prompt, prompt_lookup_num_tokens=3, **ends), expected)
        assert handle.report() == report
        assert torch.equal(tokens(model, prompt, assistant_model=helper, **ends), expected)
        assert handle.report() == report


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_an_answer_that_is_scored_in_one_pass_has_the_logits_of_generating_it(kernel: str) -> None:
    model, prompt = tiny.tiny_llama(kernel), tiny.text_prompt(2)
    answer = torch.randint(3, 60, (2, 7))
    whole = {"input_ids": torch.cat([prompt["input_ids"], answer], 1)}

    plain = generated_logits(model, prompt, answer) - logits(model, whole)[:, 23:-1]

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        expected = generated_logits(model, prompt, answer)
        report = handle.report()
        with eah.prompt_length(model, 24):
            scored = logits(model, whole)[:, 23:-1]
        assert handle.report() == report
        unaware = logits(model, whole)[:, 23:-1]

    assert_as_close(scored, expected, plain)
    assert not torch.allclose(unaware, expected, atol=0.1)


def test_prompts_of_different_length_have_lengths_of_their_own() -> None:
    model = tiny.tiny_llama()
    prompts = [tiny.text_prompt()["input_ids"][:, :length] for length in (24, 20)]
    answer = torch.randint(3, 60, (1, 5))
    rows = [torch.cat([prompt, answer], 1) for prompt in prompts]
    rows[1] = torch.cat([rows[1], torch.zeros(1, 4, dtype=torch.long)], 1)  # padded on the right
    mask = torch.ones(2, 29, dtype=torch.long)
    mask[1, 25:] = 0
    whole = {"input_ids": torch.cat(rows), "attention_mask": mask}
    plain = (
        generated_logits(model, {"input_ids": prompts[0]}, answer) - logits(model, whole)[:1, 23:28]
    )

    with eah.enabled(model, CONFIG), eah.image_tokens(model, SPAN):
        expected = [generated_logits(model, {"input_ids": p}, answer) for p in prompts]
        with eah.prompt_length(model, torch.tensor([24, 20])):
            scored = logits(model, whole)

    assert_as_close(scored[:1, 23:28], expected[0], plain)
    assert_as_close(scored[1:, 19:24], expected[1], plain)


def test_left_padding_counts_in_a_prompt_length() -> None:
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()
    answer = torch.randint(3, 60, (2, 5))
    whole = {
        "input_ids": torch.cat([prompt["input_ids"], answer], 1),
        "attention_mask": torch.cat([prompt["attention_mask"], torch.ones_like(answer)], 1),
    }

    plain = generated_logits(model, prompt, answer) - logits(model, whole)[:, 23:-1]

    with eah.enabled(model, CONFIG), eah.image_tokens(model, (3, 12)):
        expected = generated_logits(model, prompt, answer)
        with eah.prompt_length(model, 24):
            scored = logits(model, whole)[:, 23:-1]

    assert_as_close(scored, expected, plain)


@pytest.mark.parametrize("length", [0, -1, 2.0, True, torch.tensor(3), torch.tensor([0, 4])])
def test_what_is_no_prompt_length_is_refused(length: Any) -> None:
    model = tiny.tiny_llama()

    with pytest.raises(eah.EAHConfigError, match="prompt length"), eah.prompt_length(model, length):
        pass


def test_on_a_model_without_eah_a_prompt_length_does_nothing() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()

    with eah.prompt_length(model, 5):
        assert torch.equal(logits(model, prompt), logits(model, prompt))


# Caches -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("given", ["placeholders", "span", "mask"])
def test_text_behind_a_cached_image_is_untouched_and_the_report_says_so(given: str) -> None:
    model = tiny.tiny_llava() if given == "placeholders" else tiny.tiny_llama()
    prompt = tiny.image_prompt() if given == "placeholders" else tiny.text_prompt()
    turn = torch.randint(3, 60, (1, 6))
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True
    said = {"span": SPAN, "mask": mask}.get(given)

    with eah.enabled(model, CONFIG) as handle:

        def second_turn() -> torch.Tensor:
            cache = model(**prompt, use_cache=True).past_key_values
            assert handle.report()[0].skipped is None
            return model(input_ids=turn, past_key_values=cache, use_cache=True).logits

        if said is None:
            found = second_turn()
        else:
            with eah.image_tokens(model, said):
                found = second_turn()
        (report,) = handle.report()
        cache = _cache_of(model, prompt, said)
    plain = model(input_ids=turn, past_key_values=cache, use_cache=True).logits

    assert torch.equal(found, plain)
    assert report.head == (None,)
    assert "in the cache already" in str(report.skipped)


def _cache_of(model: Any, prompt: dict[str, torch.Tensor], said: Any) -> Any:
    if said is None:
        return model(**prompt, use_cache=True).past_key_values
    with eah.image_tokens(model, said):
        return model(**prompt, use_cache=True).past_key_values


def test_an_image_that_is_split_over_passes_is_refused() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, slice(*SPAN)] = True
    before = logits(model, prompt)

    for said in (SPAN, mask):
        with (
            eah.enabled(model, CONFIG),
            eah.image_tokens(model, said),
            pytest.raises(eah.EAHStateError, match=r"split over|reaches past"),
        ):
            tokens(model, prompt, prefill_chunk_size=8)

    assert torch.equal(logits(model, prompt), before)


@torch.no_grad()
def test_placeholders_behind_a_cached_image_are_refused() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    one, two = prompt["input_ids"][:, :10], prompt["input_ids"][:, 10:]

    with eah.enabled(model, CONFIG):
        cache = model(input_ids=one, use_cache=True).past_key_values
        with pytest.raises(eah.EAHStateError, match="split over forward passes"):
            model(input_ids=two, past_key_values=cache, use_cache=True)


@torch.no_grad()
def test_an_image_that_is_whole_in_a_later_pass_is_counted_there() -> None:
    """Text before an image can't see it, so the counts are those of the prompt in one piece."""
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    ids, mask = prompt["input_ids"], torch.zeros(1, 24, dtype=torch.bool)
    mask[:, 10:18] = True

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
        logits(model, prompt)
        report = handle.report()
        first = model(input_ids=ids[:, :8], use_cache=True)
        assert "in a later one" in str(handle.report()[0].skipped)
        model(input_ids=ids[:, 8:], past_key_values=first.past_key_values, use_cache=True)

    assert handle.report() == report


@torch.no_grad()
def test_rows_with_a_cached_image_and_rows_with_a_new_one_are_told_apart() -> None:
    model, ids = tiny.tiny_llama(), torch.randint(3, 60, (2, 24))
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[0, 2:9] = True
    mask[1, 12:20] = True

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
        first = model(input_ids=ids[:, :10], use_cache=True)
        assert handle.report()[0].image_tokens == (7, 0)
        model(input_ids=ids[:, 10:], past_key_values=first.past_key_values, use_cache=True)
        assert handle.report()[0].image_tokens == (0, 8)


# Reports ------------------------------------------------------------------------------------------


def test_a_report_is_of_the_last_pass_and_says_why_nothing_was_done() -> None:
    model, picture, text = tiny.tiny_llava(), tiny.image_prompt(2), tiny.text_prompt()

    with eah.enabled(model, CONFIG) as handle:
        assert handle.report() == []
        logits(model, picture)
        found = handle.report()
        assert found[0].image_tokens == (IMAGE_TOKENS,) * 2
        assert found[0].skipped is None
        logits(model, text)
        (report,) = handle.report()
        assert (report.head, report.counts, report.image_tokens) == ((None,), ((0,) * 4,), (0,))
        assert report.skipped == "the prompt has no image tokens"
        assert handle.choices == {}
        logits(model, picture)
        assert handle.report() == found


def test_a_prompt_in_which_no_head_has_a_sink_is_reported_so() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, tiny.NO_SINKS) as handle:
        logits(model, prompt)

    assert "none has a vision sink" in str(handle.report()[0].skipped)


def test_decode_steps_leave_the_report_of_their_prompt() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG) as handle:
        logits(model, prompt)
        report = handle.report()
        tokens(model, prompt)

    assert handle.report() == report


def test_padding_is_not_counted_in_a_span() -> None:
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()
    alone = {"input_ids": prompt["input_ids"][:1, 5:]}
    config = eah.EAHConfig.preset("scale-free", layers=(1,), image_span=(3, 15))

    with eah.enabled(model, config) as handle:
        logits(model, prompt)
        together = handle.report()[0]
        logits(model, alone)
        (report,) = handle.report()

    assert together.image_tokens == (12, 12)
    assert (together.head[0], together.counts[0]) == (report.head[0], report.counts[0])
