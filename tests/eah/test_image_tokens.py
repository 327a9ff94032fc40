"""How an enabled model learns where the image tokens are."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits


def mask_of(span: tuple[int, int], rows: int = 1) -> torch.Tensor:
    mask = torch.zeros(rows, 24, dtype=torch.bool)
    mask[:, slice(*span)] = True
    return mask


def found(handle: eah.EAHHandle) -> tuple[int, ...]:
    return handle.report()[0].image_tokens


def test_placeholders_span_and_mask_say_the_same() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)

    with eah.enabled(model, CONFIG):
        by_id = logits(model, prompt)
        with eah.image_tokens(model, SPAN):
            by_span = logits(model, prompt)
        with eah.image_tokens(model, mask_of(SPAN, 2)):
            by_mask = logits(model, prompt)

    assert torch.equal(by_span, by_id)
    assert torch.equal(by_mask, by_id)


def test_embeddings_with_a_mask_give_the_result_of_the_ids() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    embeds = model.get_input_embeddings()(prompt["input_ids"]).detach()

    with eah.enabled(model, CONFIG), eah.image_tokens(model, mask_of(SPAN)):
        by_ids = logits(model, prompt)
        by_embeds = logits(model, {"inputs_embeds": embeds})

    assert torch.equal(by_embeds, by_ids)


def test_a_fixed_span_of_the_config_serves_every_prompt() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    config = eah.EAHConfig.preset("scale-free", image_span=SPAN)

    with eah.enabled(model, config) as handle:
        by_config = logits(model, prompt)
    with eah.enabled(model, CONFIG), eah.image_tokens(model, SPAN):
        by_block = logits(model, prompt)

    assert found(handle) == (IMAGE_TOKENS,)
    assert torch.equal(by_config, by_block)


def test_a_block_counts_more_than_the_span_of_the_config() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    config = eah.EAHConfig.preset("scale-free", image_span=SPAN)

    with eah.enabled(model, config) as handle, eah.image_tokens(model, (2, 5)):
        logits(model, prompt)

    assert found(handle) == (3,)


@pytest.mark.parametrize("outer", ["vision-language model", "language model"])
def test_a_prompt_with_unknown_image_tokens_is_an_error(outer: str) -> None:
    """No embedding is in the table, so what is text and what is image can't be known."""
    model = tiny.tiny_llava() if outer == "vision-language model" else tiny.tiny_llama()
    inputs = {"inputs_embeds": torch.randn(1, 24, 32)}
    before = logits(model, inputs)

    reached = []
    attention = tiny.attention(model, 0)
    hook = attention.register_forward_pre_hook(lambda *_: reached.append(0))
    with (
        eah.enabled(model, CONFIG),
        pytest.raises(eah.EAHStateError, match=r"not known .*`with eah\.image_tokens\(model"),
    ):
        logits(model, inputs)
    hook.remove()

    assert not reached
    assert torch.equal(logits(model, inputs), before)


def test_an_inner_block_counts_until_it_ends() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()

    seen = []
    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, (2, 12)):
        logits(model, prompt)
        seen.append(found(handle))
        with eah.image_tokens(model, mask_of((2, 5))):
            logits(model, prompt)
            seen.append(found(handle))
        logits(model, prompt)
        seen.append(found(handle))

    assert seen == [(10,), (3,), (10,)]


def test_a_block_left_by_an_exception_counts_no_more() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG) as handle:
        with pytest.raises(ZeroDivisionError), eah.image_tokens(model, (0, 5)):
            raise ZeroDivisionError
        logits(model, prompt)

    assert found(handle) == (IMAGE_TOKENS,)


def test_on_a_model_without_eah_the_block_does_nothing() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    before = logits(model, prompt)

    with eah.image_tokens(model, SPAN):
        inside = logits(model, prompt)

    assert torch.equal(inside, before)
    assert not eah.is_enabled(model)


def test_a_prompt_said_to_have_no_image_is_untouched() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG), eah.image_tokens(model, mask_of((0, 0))):
        inside = logits(model, prompt)

    assert torch.equal(inside, before)


def test_each_row_of_a_batch_has_its_own_image() -> None:
    model, prompt = tiny.tiny_llama("eager"), tiny.text_prompt(3)
    mask = torch.cat([mask_of((2, 12)), mask_of((0, 0)), mask_of((5, 8))])
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, mask):
        inside = logits(model, prompt)

    assert found(handle) == (10, 0, 3)
    assert handle.report()[0].head[1] is None
    assert torch.equal(inside[1], before[1])
    assert not torch.allclose(inside[0], before[0])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((5, 5), r"image span \(5, 5\), but a span is \(start, stop\) with 0 <= start < stop"),
        ((-1, 4), "0 <= start < stop"),
        ((1, 2, 3), "0 <= start < stop"),
        (torch.ones(24, dtype=torch.bool), r"shape \(24,\).*a mask is \(batch, prompt length\)"),
        (torch.ones(1, 24), r"torch\.float32; a mask is .* and bool"),
    ],
)
def test_what_is_no_span_and_no_mask_is_refused(tokens: object, message: str) -> None:
    model = tiny.tiny_llama()

    with pytest.raises(eah.EAHConfigError, match=message), eah.image_tokens(model, tokens):
        pass


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((3, 25), r"image span \[3, 25\) reaches past the 24 tokens of the prompt"),
        (mask_of(SPAN, 2), "image mask of 2 rows for a batch of 3"),
    ],
)
def test_image_tokens_of_another_prompt_are_an_error(tokens: object, message: str) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt(3)

    with (
        eah.enabled(model, CONFIG),
        eah.image_tokens(model, tokens),
        pytest.raises(eah.EAHStateError, match=message),
    ):
        logits(model, prompt)


@pytest.mark.parametrize("source", ["block", "config"])
def test_a_span_does_not_count_the_padding_before_a_prompt(source: str) -> None:
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()
    config = tiny.CONFIG
    if source == "config":
        config = eah.EAHConfig.preset("scale-free", image_span=SPAN)
    mask = mask_of(SPAN, 2)
    mask[0] = mask[0].roll(5)
    assert mask[0].nonzero().flatten().tolist() == [*range(SPAN[0] + 5, SPAN[1] + 5)]

    with eah.enabled(model, config) as handle:
        with eah.image_tokens(model, SPAN) if source == "block" else nullcontext():
            by_span = logits(model, prompt)
        report = handle.report()
        with eah.image_tokens(model, mask):
            by_mask = logits(model, prompt)

        assert handle.report() == report
    assert report[0].image_tokens == (IMAGE_TOKENS,) * 2
    assert torch.equal(by_span, by_mask)


def test_a_span_past_the_tokens_of_a_padded_prompt_is_an_error() -> None:
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()

    with eah.enabled(model, CONFIG) as handle:
        with eah.image_tokens(model, (3, 19)):
            logits(model, prompt)
        assert handle.report()[0].image_tokens == (16, 16)
        with (
            eah.image_tokens(model, (3, 20)),
            pytest.raises(eah.EAHStateError, match=r"span \[3, 20\) reaches past the 19 tokens"),
        ):
            logits(model, prompt)
