"""Gradients under EAH: the choice is a constant, and checkpointed layers see their own prompt."""

from __future__ import annotations

import copy

import pytest
import torch

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, TARGET

PROMPTS = 2


def gradients(model: torch.nn.Module, prompts: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """Return the gradients of a loss over prompts that differ in their image tokens."""
    model.zero_grad()
    losses = []
    for prompt, span in zip(prompts, (SPAN, (1, 6)), strict=True):
        with eah.image_tokens(model, span):
            losses.append(model(**prompt, use_cache=False).logits.square().mean())
    sum(losses).backward()
    return [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_give_the_gradients_of_layers_that_are_not(reentrant: bool) -> None:
    model = tiny.tiny_llama().train()
    prompts = [tiny.text_prompt() for _ in range(PROMPTS)]
    plain = gradients(model, prompts)

    with eah.enabled(model, CONFIG):
        expected = gradients(model, prompts)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        found = gradients(model, prompts)
        twin = copy.deepcopy(model)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert any(
        not torch.allclose(one, other, atol=1e-3)
        for one, other in zip(plain, expected, strict=True)
    )
    again = gradients(model, prompts)
    assert all(torch.equal(one, other) for one, other in zip(again, plain, strict=True))
    eah.disable(twin)


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
