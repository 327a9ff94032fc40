"""Models in training mode are left alone; gradients under EAH take its choice for a constant."""

from __future__ import annotations

import logging

import pytest
import torch

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, TARGET, logits


def gradients(model: torch.nn.Module, prompt: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    model(**prompt, use_cache=False).logits.square().mean().backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_training_is_left_alone_and_said_once(
    checkpointing: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompt = tiny.tiny_llava().train(), tiny.image_prompt()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    expected = gradients(model, prompt)

    with caplog.at_level(logging.WARNING, "eah"), eah.enabled(model, CONFIG) as handle:
        gradients(model, prompt)
        found = gradients(model, prompt)

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert handle.report()[0].skipped == (
        "the model is in training mode, so it runs without EAH; call model.eval() for EAH"
    )
    assert [record.getMessage() for record in caplog.records] == [
        "EAH: LlavaForConditionalGeneration is in training mode, so it runs without EAH; call "
        "model.eval() for EAH"
    ]


def test_noise_on_embeddings_does_not_stop_a_training() -> None:
    model = tiny.tiny_llama().train()
    inputs = {"inputs_embeds": torch.randn(1, 24, 32)}
    expected = gradients(model, inputs)

    with eah.enabled(model, CONFIG), eah.observe(model) as seen:
        assert all(map(torch.equal, gradients(model, inputs), expected))

    assert "training mode" in str(seen.report()[0].skipped)


def test_a_frozen_decoder_in_a_model_that_is_trained_is_treated() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    with eah.enabled(model, CONFIG) as handle:
        expected = logits(model, prompt)
        model.train()
        model.model.language_model.eval()
        found = logits(model, prompt)

        assert handle.report()[0].skipped is None
    torch.testing.assert_close(found, expected)


def test_a_target_layer_in_training_mode_is_left_alone() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    before = logits(model, prompt)
    tiny.attention(model).train()

    with eah.enabled(model, CONFIG):
        assert torch.equal(logits(model, prompt), before)


def test_gradients_are_those_of_attention_with_the_chosen_heads_query_and_key() -> None:
    model, prompt = tiny.tiny_llama("eager"), tiny.text_prompt()
    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        model(**prompt).logits.square().mean().backward()
        head = handle.report()[0].head[0]
    found = tiny.attention(model).q_proj.weight.grad

    size = 8
    own = [h for h in range(4) if h != head]
    assert head is not None
    for h in own:  # heads whose map nobody uses get no gradient
        assert found[h * size : (h + 1) * size].abs().max() == 0
    assert found[head * size : (head + 1) * size].abs().max() > 0
    assert tiny.attention(model, TARGET + 1).q_proj.weight.grad.abs().max() > 0
