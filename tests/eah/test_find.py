"""What `enable` refuses, each with an error that says what was got and what to do."""

from __future__ import annotations

import pytest
import torch
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
from eah.find import attention_modules, image_token_id
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


def test_the_image_token_id_is_the_configs() -> None:
    assert image_token_id(tiny.tiny_llava()) == tiny.IMAGE_TOKEN
    assert image_token_id(tiny.tiny_llama()) is None


def test_enabling_twice_is_an_error_and_keeps_the_first() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, tiny.CONFIG)

    with pytest.raises(eah.EAHStateError, match="enabled on this LlamaForCausalLM already"):
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

    expected = f"layers={layers} but LlavaForConditionalGeneration has 3 decoder layers (0..2)"
    assert str(error.value) == expected
    assert not eah.is_enabled(model)


def test_a_missing_head_is_named_with_the_heads_there_are() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, eah.EAHConfig(head=3))
    eah.disable(model)

    with pytest.raises(eah.EAHConfigError) as error:
        eah.enable(model, eah.EAHConfig(head=4))

    assert str(error.value) == "head=4 but LlamaForCausalLM has 4 heads (0..3)"
    assert not eah.is_enabled(model)


@pytest.mark.parametrize("kernel", ["paged|sdpa", "paged|flash_attention_2", "my_kernel"])
def test_an_unknown_kernel_is_named_with_those_that_work(kernel: str) -> None:
    model = tiny.tiny_llama()
    model.config._attn_implementation = kernel

    with pytest.raises(eah.UnsupportedModelError) as error:
        eah.enable(model)

    assert f"attn_implementation={kernel!r} in layer 1" in str(error.value)
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

    with pytest.raises(eah.UnsupportedModelError, match="two attention modules in layer 0"):
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
