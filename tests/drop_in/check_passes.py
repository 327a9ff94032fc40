"""The drop-in in threads, behind caches and with answers in the prompt's pass, in any transformers.

Run like check_drop_in.py, whose models and settings it uses.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from check_drop_in import (
    KERNELS,
    SPAN,
    VERSION,
    build,
    environment,  # noqa: F401  # a fixture for every test
    generated,
    logits,
    plain,  # noqa: F401  # a fixture
    prompts,
    tally,  # noqa: F401  # a fixture for every test
)
from transformers.models.llama import modeling_llama

THREADS, PREFILLS, PROMPTS = 4, 150, 8


def own_forward(model: Any) -> Any:
    """Return the model whose `forward` reads the prompts."""
    return getattr(model, "model", model)


@pytest.fixture
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def in_thread(work: Callable[[], Any]) -> Any:
    """Return what a function returns or raises in a thread of its own."""
    found = []

    def run() -> None:
        try:
            found.append(work())
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def steps(model: Any, ids: torch.Tensor, mask: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Return the logits of feeding an answer token by token behind a cached prompt."""
    found = []
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, use_cache=True)
        found.append(output.logits[:, -1:])
        for at in range(answer.shape[1] - 1):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            output = model(input_ids=answer[:, at : at + 1], attention_mask=mask,
                           past_key_values=output.past_key_values, use_cache=True)  # fmt: skip
            found.append(output.logits)
    return torch.cat(found, 1)


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_thread_gets_the_output_of_a_single_one(kernel: str, switch_often: None) -> None:
    model = build(kernel=kernel)
    ids = [prompts([30])[0].roll(number, 1) for number in range(PROMPTS)]
    spans = [(2 + number % 3, 12 + number) for number in range(PROMPTS)]
    faults = []

    def ask(number: int) -> torch.Tensor:
        with modeling_llama.image_tokens(spans[number]):
            return logits(model, input_ids=ids[number])

    expected = [ask(number) for number in range(PROMPTS)]

    def work(thread: int) -> None:
        for turn in range(PREFILLS):
            number = (5 * turn + thread) % PROMPTS
            try:
                if not torch.equal(ask(number), expected[number]):
                    faults.append(number)
            except RuntimeError as error:
                faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert torch.equal(ask(0), expected[0])
    spanless = [logits(model, input_ids=ids[number]) for number in range(PROMPTS)]
    assert any(
        not torch.allclose(one, other, atol=1e-3)
        for one, other in zip(expected, spanless, strict=True)
    )


def test_image_tokens_hold_for_the_thread_that_enters_the_block() -> None:
    model, (ids, _) = build(), prompts([30])

    def inside() -> torch.Tensor:
        with modeling_llama.image_tokens((5, 25)):
            return logits(model, input_ids=ids)

    expected = inside()
    with modeling_llama.image_tokens((2, 9)):
        refused = in_thread(lambda: logits(model, input_ids=ids))
        found = in_thread(inside)

    assert "active in another thread" in str(refused)
    assert torch.equal(found, expected)
    assert torch.equal(
        in_thread(lambda: logits(model, input_ids=ids)), logits(model, input_ids=ids)
    )


def test_an_interrupted_pass_is_forgotten() -> None:
    model, (ids, _) = build(), prompts([30])
    expected = logits(model, input_ids=ids)
    layer = model.model.layers[2]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    hook = layer.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), modeling_llama.image_tokens((0, 4)):
        logits(model, input_ids=ids)
    hook.remove()

    assert torch.equal(logits(model, input_ids=ids), expected)


# Answers and caches -------------------------------------------------------------------------------


@pytest.mark.skipif(
    (4, 38) <= VERSION < (4, 42), reason="without a cache, these let a prompt see its answer"
)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_without_a_cache_is_generation_with_it(kernel: str, beams: int) -> None:
    model = build(kernel=kernel)
    ids, mask = prompts([30, 24])

    cached = generated(model, ids, mask, num_beams=beams)

    assert generated(model, ids, mask, num_beams=beams, use_cache=False) == cached


@pytest.mark.skipif(VERSION < (4, 37), reason="prompt lookup came later")
def test_prompt_lookup_gives_the_same_tokens() -> None:
    model = build()
    ids, mask = prompts([30])
    ids[:, 25:] = ids[:, 20:25]

    expected = generated(model, ids, mask)

    assert generated(model, ids, mask, prompt_lookup_num_tokens=3) == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_answer_that_is_scored_in_one_pass_has_the_logits_of_generating_it(
    kernel: str,
    plain: Any,
) -> None:
    model, other = build(kernel=kernel), build(plain.LlamaForCausalLM, kernel)
    ids, mask = prompts([30, 24])
    answer = torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(5))
    whole = {"input_ids": torch.cat([ids, answer], 1),
             "attention_mask": torch.cat([mask, torch.ones_like(answer)], 1)}  # fmt: skip

    drift = (steps(other, ids, mask, answer) - logits(other, **whole)[:, 29:-1]).abs().max()
    expected = steps(model, ids, mask, answer)
    with modeling_llama.prompt_length(30):
        scored = logits(model, **whole)[:, 29:-1]
    with modeling_llama.prompt_length(torch.tensor([30, 30])):
        again = logits(model, **whole)[:, 29:-1]

    assert (scored - expected).abs().max() <= 4 * drift + 1e-6
    assert torch.equal(again, scored)
    assert not torch.allclose(logits(model, **whole)[:, 29:-1], expected, atol=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_text_behind_a_cached_image_is_untouched(kernel: str, plain: Any) -> None:
    model, other = build(kernel=kernel), build(plain.LlamaForCausalLM, kernel)
    ids, mask = prompts([30])
    turn = torch.randint(3, 64, (1, 5), generator=torch.Generator().manual_seed(5))
    both = torch.cat([mask, torch.ones_like(turn)], 1)

    found = []
    for decoder in (model, other):
        with torch.no_grad():
            past = model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
            found.append(decoder(input_ids=turn, attention_mask=both, past_key_values=past,
                                 use_cache=True).logits)  # fmt: skip

    assert torch.equal(*found)


def test_an_image_that_is_split_over_passes_is_refused() -> None:
    model, (ids, _) = build(), prompts([30])

    with torch.no_grad():
        past = model(input_ids=ids[:, :10], use_cache=True).past_key_values
        with pytest.raises(RuntimeError, match="split over forward passes"):
            model(input_ids=ids[:, 10:], past_key_values=past, use_cache=True)


@pytest.mark.skipif(VERSION < (4, 44), reason="additive masks of four dimensions came later")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("lowest", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_finite_masks_hide_their_keys(kernel: str, lowest: float) -> None:
    model, (ids, mask) = build(kernel=kernel), prompts([30, 30])
    seen = torch.ones(30, 30).tril().bool()[None, None].expand(2, 1, 30, 30)
    additive = torch.zeros(seen.shape).masked_fill(~seen, lowest)

    found = logits(model, input_ids=ids, attention_mask=additive)

    torch.testing.assert_close(found, logits(model, input_ids=ids, attention_mask=mask))


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_head_zero_can_be_the_densest(kernel: str, environment: pytest.MonkeyPatch) -> None:
    """Its query and key are made sharp on the image tokens alone."""
    ids, _ = prompts([30])
    ids[:, SPAN[0] : SPAN[1]] = 7
    model = build(kernel=kernel)
    environment.setenv("EAH_HEAD", "0")
    forced = build(kernel=kernel)
    for one in (model, forced):
        attention = one.model.layers[1].self_attn
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[8:] *= 12  # the other heads look at single tokens
                projection.weight[:8] *= 0.01  # this one looks everywhere

    found = logits(model, input_ids=ids)

    torch.testing.assert_close(found, logits(forced, input_ids=ids))
    environment.setenv("EAH_HEAD", "1")
    other = build(kernel=kernel)
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(logits(other, input_ids=ids), found, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_receivers_and_density_are_settings(
    kernel: str,
    environment: pytest.MonkeyPatch,
    plain: Any,
) -> None:
    ids, _ = prompts([30])
    shared = logits(build(kernel=kernel), input_ids=ids)
    original = logits(build(plain.LlamaForCausalLM, kernel), input_ids=ids)

    environment.setenv("EAH_RECEIVERS", "4")
    torch.testing.assert_close(logits(build(kernel=kernel), input_ids=ids), shared)
    environment.setenv("EAH_RECEIVERS", "1")
    some = logits(build(kernel=kernel), input_ids=ids)
    environment.delenv("EAH_RECEIVERS")
    environment.setenv("EAH_MIN_DENSITY", "1.0")
    none = logits(build(kernel=kernel), input_ids=ids)

    assert not torch.allclose(some, shared, atol=1e-3)
    assert not torch.allclose(some, original, atol=1e-3)
    torch.testing.assert_close(none, original)


@pytest.mark.parametrize("head", ["4", "5"])
def test_a_head_that_is_not_there_is_refused(head: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EAH_HEAD", head)

    with pytest.raises(ValueError, match=f"EAH_HEAD={head}, but layer 1 has 4 heads"):
        build()
