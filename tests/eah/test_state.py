"""EAH's state on a model: it is no weight, it is not saved, and it survives copies."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedModel

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, TARGET, logits

# transformers 5 leaves hooks on a Llava that can't be pickled: copies are tried on a Llama, whose
# config says where the image is.
WITH_SPAN = eah.EAHConfig.preset("scale-free", layers=(TARGET,), image_span=SPAN)
Prompt = dict[str, torch.Tensor]
Duplicate = Callable[[PreTrainedModel], PreTrainedModel]


def pickled(model: PreTrainedModel) -> PreTrainedModel:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny.tiny_llava()


@pytest.fixture
def prompt() -> dict[str, torch.Tensor]:
    return tiny.image_prompt()


def test_state_dict_is_the_same_while_enabled(model: PreTrainedModel, prompt: Prompt) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with eah.enabled(model, CONFIG):
        logits(model, prompt)
        inside = model.state_dict()

    assert list(inside) == list(before)
    assert all(torch.equal(inside[name], before[name]) for name in before)


def test_a_model_saved_while_enabled_loads_without_eah(
    model: PreTrainedModel, prompt: Prompt, tmp_path: Path
) -> None:
    before = logits(model, prompt)

    with eah.enabled(model, CONFIG):
        logits(model, prompt)
        model.save_pretrained(tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()

    assert "eah" not in (tmp_path / "config.json").read_text().lower()
    assert not eah.is_enabled(loaded)
    assert torch.equal(logits(loaded, prompt), before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("after_a_prompt", [False, True])
def test_a_copy_of_an_enabled_model_is_enabled(duplicate: Duplicate, after_a_prompt: bool) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    eah.enable(model, WITH_SPAN)
    inside = logits(model, prompt)
    if not after_a_prompt:
        eah.disable(model)
        eah.enable(model, WITH_SPAN)

    twin = duplicate(model)

    assert eah.is_enabled(twin)
    assert torch.equal(logits(twin, prompt), inside)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_disabling_the_copy_leaves_the_original_enabled(duplicate: Duplicate) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    plain = logits(model, prompt)
    eah.enable(model, WITH_SPAN)
    inside = logits(model, prompt)
    twin = duplicate(model)

    eah.disable(twin)

    assert not eah.is_enabled(twin)
    assert torch.equal(logits(twin, prompt), plain)
    assert eah.is_enabled(model)
    assert torch.equal(logits(model, prompt), inside)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_disabling_the_original_leaves_the_copy_enabled(duplicate: Duplicate) -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    plain = logits(model, prompt)
    eah.enable(model, WITH_SPAN)
    inside = logits(model, prompt)
    twin = duplicate(model)

    eah.disable(model)

    assert torch.equal(logits(model, prompt), plain)
    assert torch.equal(logits(twin, prompt), inside)


def test_a_copy_has_image_tokens_and_findings_of_its_own() -> None:
    model, text = tiny.tiny_llama(), tiny.text_prompt()
    handle = eah.enable(model, CONFIG)
    with eah.image_tokens(model, (2, 12)):
        logits(model, text)
    report = handle.report()
    twin = copy.deepcopy(model)

    with eah.image_tokens(twin, (2, 5)):
        logits(twin, text)
        assert handle.report() == report
        logits(model, text)
        assert handle.report()[0].skipped == "the prompt has no image tokens"


def test_a_copy_of_a_disabled_model_is_disabled(model: PreTrainedModel, prompt: Prompt) -> None:
    plain = logits(model, prompt)
    eah.enable(model, CONFIG)
    eah.disable(model)

    twin = copy.deepcopy(model)

    assert not eah.is_enabled(twin)
    assert torch.equal(logits(twin, prompt), plain)


def test_two_models_are_enabled_apart(model: PreTrainedModel, prompt: Prompt) -> None:
    other = tiny.tiny_llava()
    plain = logits(other, prompt)

    with eah.enabled(model, CONFIG):
        assert not eah.is_enabled(other)
        assert torch.equal(logits(other, prompt), plain)
        with eah.enabled(other, CONFIG):
            both = logits(other, prompt)
        assert eah.is_enabled(model)
        assert torch.equal(logits(model, prompt), both)


def test_a_model_enabled_again_takes_the_new_settings(
    model: PreTrainedModel, prompt: Prompt
) -> None:
    with eah.enabled(model, CONFIG):
        first = logits(model, prompt)
    with eah.enabled(model, eah.EAHConfig.preset("scale-free", layers=(0, 2))):
        other = logits(model, prompt)
    with eah.enabled(model, CONFIG):
        again = logits(model, prompt)

    assert torch.equal(again, first)
    assert not torch.allclose(other, first)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_forward_pass_that_fails_is_forgotten(
    layer: int, recwarn: pytest.WarningsRecorder
) -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    text = tiny.text_prompt()
    before = logits(model, text)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with eah.enabled(model, CONFIG) as handle:
        expected = logits(model, prompt)
        hook = tiny.attention(model, layer).register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError), eah.image_tokens(model, (0, 5)):
            logits(model, prompt)
        hook.remove()
        assert not [warning for warning in recwarn if "silenced" in str(warning.message)]

        assert torch.equal(logits(model, text), before)
        assert torch.equal(logits(model, prompt), expected)
        assert handle.report()[0].image_tokens == (tiny.IMAGE_TOKENS,)
