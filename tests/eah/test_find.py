"""What `enable` refuses, each with an error that says what was got and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import eah
from eah.find import attention_modules, placeholder_ids
from tests.eah import tiny
from tests.eah.tiny import SETTINGS


def test_the_decoders_attention_is_found_by_layer_and_not_the_vision_towers() -> None:
    found = attention_modules(tiny.tiny_llava())

    assert list(found) == [0, 1, 2]
    assert {type(module).__name__ for module in found.values()} == {"LlamaAttention"}


def test_another_decoder_with_the_attention_interface_works() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SETTINGS)).eval()

    with eah.enabled(model, tiny.CONFIG) as handle, eah.image_tokens(model, tiny.SPAN):
        tiny.logits(model, tiny.text_prompt())

    assert handle.report()[0].image_tokens == (tiny.IMAGE_TOKENS,)


def test_the_ids_of_image_tokens_are_the_configs() -> None:
    assert placeholder_ids(tiny.tiny_llava()) == {"image": (tiny.IMAGE_TOKEN,), "video": ()}
    assert placeholder_ids(tiny.tiny_llama()) == {"image": (), "video": ()}


def test_enabling_twice_is_an_error_and_keeps_the_first() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, tiny.CONFIG)

    with pytest.raises(eah.EAHStateError, match="already enabled on this LlamaForCausalLM"):
        eah.enable(model)

    assert eah.is_enabled(model)


def test_disabling_a_model_that_is_not_enabled_is_an_error() -> None:
    with pytest.raises(eah.EAHStateError, match=r"not enabled on this Llama.*eah\.enable\(model\)"):
        eah.disable(tiny.tiny_llama())


@pytest.mark.parametrize("layers", [(3,), (1, 40)])
def test_a_missing_layer_is_named_with_the_layers_there_are(layers: tuple[int, ...]) -> None:
    model = tiny.tiny_llava()

    with pytest.raises(eah.EAHConfigError) as error:
        eah.enable(model, eah.EAHConfig(layers=layers))

    assert str(error.value) == (
        f"layers={layers} but LlavaForConditionalGeneration has no layer {layers[-1]} with softmax "
        "attention; layers that can be patched: 0..2"
    )
    assert not eah.is_enabled(model)


def test_a_missing_head_is_named_with_the_heads_there_are() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, eah.EAHConfig(head=3))
    eah.disable(model)

    with pytest.raises(eah.EAHConfigError) as error:
        eah.enable(model, eah.EAHConfig(head=4))

    assert str(error.value) == "head=4 but layer 1 has 4 heads (0..3)"
    assert not eah.is_enabled(model)


def test_more_receivers_than_heads_are_refused_with_the_heads_there_are() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, eah.EAHConfig(receivers=4))
    eah.disable(model)

    with pytest.raises(eah.EAHConfigError) as error:
        eah.enable(model, eah.EAHConfig(receivers=5))

    assert str(error.value) == (
        "receivers=5 but layer 1 has 4 heads; name at most as many, or 'all'"
    )
    assert not eah.is_enabled(model)


@pytest.mark.parametrize("kernel", ["paged|sdpa", "paged|flash_attention_2", "my_kernel"])
def test_an_unknown_kernel_is_named_with_those_that_work(kernel: str) -> None:
    model = tiny.tiny_llama()
    model.config._attn_implementation = kernel

    with pytest.raises(eah.UnsupportedModelError) as error:
        eah.enable(model)

    assert f"LlamaForCausalLM, layer 1: attn_implementation={kernel!r};" in str(error.value)
    assert "eager, sdpa, flash_attention_*, flex_attention" in str(error.value)
    assert not eah.is_enabled(model)


@pytest.mark.parametrize("kernel", ["flash_attention_3", "flex_attention"])
def test_kernels_that_are_no_torch_functions_are_accepted(kernel: str) -> None:
    model = tiny.tiny_llama()
    model.config._attn_implementation = kernel

    eah.enable(model)

    assert eah.is_enabled(model)


def test_a_module_that_is_not_of_transformers_is_refused() -> None:
    with pytest.raises(eah.UnsupportedModelError, match="Linear is not a transformers model"):
        eah.enable(torch.nn.Linear(2, 2))


def test_a_vision_model_has_no_decoder() -> None:
    tower = tiny.tiny_llava().model.vision_tower

    with pytest.raises(eah.UnsupportedModelError, match="has no decoder self-attention"):
        eah.enable(tower)


def test_an_encoder_decoder_is_refused() -> None:
    config = BartConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )

    with pytest.raises(eah.UnsupportedModelError, match="is an encoder-decoder: its decoder"):
        eah.enable(BartForConditionalGeneration(config))


def test_attention_without_the_attention_interface_is_refused() -> None:
    falcon = FalconForCausalLM(
        FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2))

    with pytest.raises(eah.UnsupportedModelError, match="FalconAttention does not choose"):
        eah.enable(falcon)
    with pytest.raises(eah.UnsupportedModelError, match="has no decoder self-attention"):
        eah.enable(bloom)


@pytest.mark.parametrize(("kind", "expected"), [("image", (16,)), ("video", (5,)), ("all", (21,))])
def test_vision_tokens_chooses_pictures_or_videos(kind: str, expected: tuple[int, ...]) -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    model.config.video_token_id = 62
    prompt["input_ids"][:, 19:] = 62

    with eah.enabled(model, eah.EAHConfig(vision_tokens=kind)) as handle:
        tiny.logits(model, prompt)

    assert handle.report()[0].image_tokens == expected


class Wrapper:
    """What the protocol asks for, and nothing else."""

    def __init__(self, model: object) -> None:
        self.model = model


def test_a_wrapper_is_enabled_as_its_model_is() -> None:
    wrapper = Wrapper(tiny.tiny_llava())
    prompt = tiny.image_prompt()

    with eah.enabled(wrapper, tiny.CONFIG) as handle, eah.prompt_length(wrapper, 30):
        assert eah.is_enabled(wrapper)
        assert eah.is_enabled(wrapper.model)
        with eah.image_tokens(wrapper, (2, 5)), eah.observe(wrapper) as seen:
            tiny.logits(wrapper.model, prompt)

    assert handle.report()[0].image_tokens == (3,)
    assert len(seen.report()) == 3
    assert not eah.is_enabled(wrapper)


def test_a_wrapper_and_its_model_are_one() -> None:
    wrapper = Wrapper(tiny.tiny_llava())

    handle = eah.enable(wrapper, tiny.CONFIG)
    assert handle.model is wrapper.model
    with pytest.raises(eah.EAHStateError, match="EAH is already enabled on this Llava"):
        eah.enable(wrapper.model)
    eah.disable(wrapper.model)
    with pytest.raises(eah.EAHStateError, match="not enabled on this LlavaForConditionalGen"):
        eah.disable(wrapper)


@pytest.mark.parametrize(
    ("passed", "what"),
    [
        ("llava-hf/llava-1.5-7b-hf", "str is not a transformers model and has none"),
        (None, "NoneType is not a transformers model and has none"),
        (tiny.tiny_llava, "function is not a transformers model and has none"),
        (Wrapper, "the class Wrapper is not a transformers model and has none"),
        (Wrapper(None), "Wrapper is not a transformers model and has none"),
        (Wrapper(nn.Linear(2, 2)), r"Wrapper\.model \(a Linear\) is not a transformers model"),
        (Wrapper(Wrapper(None)), "Wrapper is not a transformers model and has none"),
        (nn.Linear(2, 2), "Linear is not a transformers model"),
        (nn.Sequential(nn.Linear(2, 2)), "Sequential is not a transformers model"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        eah.enable,
        eah.disable,
        eah.is_enabled,
        lambda model: eah.enabled(model).__enter__(),
        lambda model: eah.observe(model).__enter__(),
        lambda model: eah.image_tokens(model, (1, 2)).__enter__(),
        lambda model: eah.prompt_length(model, 3).__enter__(),
    ],
    ids=["enable", "disable", "is_enabled", "enabled", "observe", "image_tokens", "prompt_length"],
)
def test_what_is_no_model_is_refused_in_one_sentence(
    call: Callable[[Any], object], passed: object, what: str
) -> None:
    allowed = "pass a loaded transformers model, or an object that has one as its attribute `model`"
    with pytest.raises(eah.UnsupportedModelError, match=f"^{what}; {allowed}, [^\n]*$"):
        call(passed)
