"""What `enable` changes and what it leaves bit for bit, and how it is undone."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedModel

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, KERNELS, NO_SINKS, SPAN, TARGET, image_prompt, logits

FAMILIES = ("llama", "llava")
Case = tuple[PreTrainedModel, dict[str, torch.Tensor]]


@pytest.fixture(params=[f"{family}-{kernel}" for family in FAMILIES for kernel in KERNELS])
def case(request: pytest.FixtureRequest) -> Case:
    """Return a tiny model and a prompt with an image, for each family and kernel."""
    family, kernel = request.param.split("-")
    if family == "llava":
        return tiny.tiny_llava(kernel), image_prompt(2)
    return tiny.tiny_llama(kernel), tiny.text_prompt(2)


def image_known(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Say where the image is to the bare language model; the Llava finds it by itself."""
    if isinstance(model, LlavaForConditionalGeneration):
        return nullcontext()
    return eah.image_tokens(model, SPAN)


def test_an_image_prompt_is_changed_and_the_map_shared(case: Case) -> None:
    model, prompt = case
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG), image_known(model):
        inside = logits(model, prompt)

    assert (inside - before).abs().max() > 0.1


def test_leaving_the_with_block_restores_outputs_bitwise(case: Case) -> None:
    model, prompt = case
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG), image_known(model):
        logits(model, prompt)

    assert not eah.is_enabled(model)
    assert torch.equal(logits(model, prompt), before)


def attributes(model: PreTrainedModel) -> dict[str, dict[str, object]]:
    """Return the attributes and the hooks of every module, the latter by what they call."""
    return {
        name: {
            key: list(value) if key.endswith(("_hooks", "_called", "_kwargs")) else id(value)
            for key, value in vars(module).items()
        }
        for name, module in model.named_modules()
    }


def test_disable_leaves_no_attribute_and_no_hook(case: Case) -> None:
    model, prompt = case
    before, found = logits(model, prompt), attributes(model)

    handle = eah.enable(model, CONFIG)
    assert eah.is_enabled(model)
    assert attributes(model) != found
    handle.disable()

    assert not eah.is_enabled(model)
    assert attributes(model) == found
    assert torch.equal(logits(model, prompt), before)


def test_an_exception_in_the_with_block_restores_outputs_bitwise(case: Case) -> None:
    model, prompt = case
    before = logits(model, prompt)

    with pytest.raises(ZeroDivisionError), eah.enabled(model, CONFIG):  # noqa: PT012
        with eah.image_tokens(model, SPAN):
            logits(model, prompt)
        raise ZeroDivisionError

    assert torch.equal(logits(model, prompt), before)


def test_other_peoples_hooks_survive_disable() -> None:
    model, seen = tiny.tiny_llama(), []
    model.register_forward_hook(lambda *_: seen.append("after"))
    model.model.register_forward_pre_hook(lambda *_: seen.append("before"))

    with eah.enabled(model, CONFIG):
        pass
    logits(model, tiny.text_prompt())

    assert seen == ["before", "after"]


def test_hidden_states_up_to_the_target_layer_are_bitwise_the_same(case: Case) -> None:
    model, prompt = case

    with torch.no_grad():
        before = model(**prompt, output_hidden_states=True).hidden_states
        with eah.enabled(model, CONFIG), image_known(model):
            inside = model(**prompt, output_hidden_states=True).hidden_states

    for layer in range(TARGET + 1):
        assert torch.equal(inside[layer], before[layer])
    assert not torch.allclose(inside[TARGET + 1], before[TARGET + 1])


def test_a_decode_step_on_the_same_cache_is_bitwise_the_same(case: Case) -> None:
    model, prompt = case
    step = torch.randint(3, 60, (2, 1))

    with torch.no_grad():
        with eah.enabled(model, CONFIG), image_known(model):
            cache = model(**prompt, use_cache=True).past_key_values
            other = copy.deepcopy(cache)
            inside = model(input_ids=step, past_key_values=cache).logits
        outside = model(input_ids=step, past_key_values=other).logits

    assert torch.equal(inside, outside)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_text_prompt_on_an_enabled_llava_is_bitwise_the_same(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.text_prompt(2)
    before, generated = logits(model, prompt), tiny.tokens(model, prompt)

    with eah.enabled(model, CONFIG) as handle:
        inside, inside_generated = logits(model, prompt), tiny.tokens(model, prompt)

    assert torch.equal(inside, before)
    assert torch.equal(inside_generated, generated)
    assert handle.choices == {}
    assert handle.report()[0].skipped == "the prompt has no image tokens"


def test_a_text_turn_after_an_image_turn_is_bitwise_the_same(case: Case) -> None:
    model, prompt = case
    turn = tiny.text_prompt(2)

    with torch.no_grad():
        with eah.enabled(model, CONFIG), image_known(model):
            cache = model(**prompt, use_cache=True).past_key_values
            other = copy.deepcopy(cache)
            inside = model(**turn, past_key_values=cache).logits
        outside = model(**turn, past_key_values=other).logits

    assert torch.equal(inside, outside)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_where_no_head_qualifies_nothing_changes(family: str, kernel: str) -> None:
    model = tiny.tiny_llava(kernel) if family == "llava" else tiny.tiny_llama(kernel)
    prompt = image_prompt(2) if family == "llava" else tiny.text_prompt(2)
    before = logits(model, prompt)

    with eah.enabled(model, NO_SINKS) as handle, eah.image_tokens(model, SPAN):
        inside = logits(model, prompt)

    assert handle.report()[0].head == (None, None)
    if kernel == "eager":
        assert torch.equal(inside, before)
    else:
        torch.testing.assert_close(inside, before)


def test_the_default_is_the_preset_paper() -> None:
    with eah.enabled(tiny.tiny_llama()) as handle:
        assert handle.config == eah.EAHConfig.preset("paper")
        assert handle.layers == (1,)


def test_several_layers_are_changed_each_by_its_own_head() -> None:
    model, prompt = tiny.tiny_llava(), image_prompt()
    config = eah.EAHConfig.preset("scale-free", layers=(2, 0))

    with eah.enabled(model, config) as handle:
        logits(model, prompt)

    assert handle.layers == (0, 2)
    assert [report.layer for report in handle.report()] == [0, 2]
