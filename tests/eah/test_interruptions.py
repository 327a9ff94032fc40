"""What a model meets in a long life: Ctrl-C, another process, being disabled in part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SETTINGS, SPAN, logits

ROOT = Path(__file__).resolve().parents[2]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_prefill_is_forgotten() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    with eah.enabled(model, CONFIG) as handle:
        expected = logits(model, prompt)
        hook = tiny.attention(model, 2).register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), eah.image_tokens(model, (0, 5)):
            logits(model, prompt)
        hook.remove()

        again = logits(model, prompt)

        assert handle.report()[0].image_tokens == (IMAGE_TOKENS,)
        assert torch.equal(again, expected)


def test_text_after_an_interrupted_image_prefill_is_untouched() -> None:
    model, text = tiny.tiny_llava(), tiny.text_prompt()
    before = logits(model, text)
    with eah.enabled(model, CONFIG):
        hook = tiny.attention(model, 2).register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            logits(model, tiny.image_prompt())
        hook.remove()

        assert torch.equal(logits(model, text), before)


@pytest.mark.parametrize("layer", [0, 2])
def test_an_inner_model_does_not_see_an_interrupted_prompt(layer: int) -> None:
    model, text = tiny.tiny_llava(), tiny.text_prompt()
    inner = model.model.language_model
    embeds = {"inputs_embeds": inner.get_input_embeddings()(text["input_ids"]).detach()}
    mask = torch.zeros(1, 24, dtype=torch.bool)
    with torch.no_grad(), eah.enabled(model, CONFIG) as handle:
        with eah.image_tokens(model, mask):
            expected = inner(**embeds).last_hidden_state
        hook = tiny.attention(model, layer).register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            logits(model, tiny.image_prompt())
        hook.remove()

        again = inner(**embeds).last_hidden_state
        assert torch.equal(again, expected)
        assert handle.report()[0].skipped == "the prompt has no image tokens"


def test_a_pickled_enabled_model_runs_in_a_fresh_process(tmp_path: Path) -> None:
    model = tiny.tiny_llama()
    eah.enable(model, eah.EAHConfig.preset("scale-free", image_span=SPAN))
    ids = torch.arange(3, 27)[None]
    torch.save(model, tmp_path / "model.pt")
    torch.save(logits(model, {"input_ids": ids}), tmp_path / "logits.pt")
    code = (
        "import sys, torch\n"
        "model = torch.load(sys.argv[1] + '/model.pt', weights_only=False)\n"
        "expected = torch.load(sys.argv[1] + '/logits.pt')\n"
        "with torch.no_grad(): got = model(torch.arange(3, 27)[None]).logits\n"
        "assert torch.equal(got, expected)"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


def test_disabling_an_inner_model_leaves_the_outer_one_clean() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    before = logits(model, prompt)
    eah.enable(model, CONFIG)
    inside = logits(model, prompt)
    eah.disable(model.model.language_model)

    assert not eah.is_enabled(model)
    assert torch.equal(logits(model, prompt), before)
    with eah.enabled(model, CONFIG):
        assert torch.equal(logits(model, prompt), inside)


def test_a_model_whose_part_was_disabled_generates_alike_when_enabled_again() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    eah.enable(model, CONFIG)
    eah.disable(model.model)

    with eah.enabled(model, CONFIG):
        cached = tiny.tokens(model, prompt)
        assert torch.equal(tiny.tokens(model, prompt, use_cache=False), cached)

    assert "generate" not in model.__dict__


def test_a_cache_that_dropped_tokens_is_refused() -> None:
    model = MistralForCausalLM(MistralConfig(**SETTINGS, sliding_window=8)).eval()
    first, second = torch.randint(3, 60, (1, 20)), torch.randint(3, 60, (1, 10))
    with torch.no_grad(), eah.enabled(model, CONFIG):
        with eah.image_tokens(model, (2, 5)):
            cache = model(first, use_cache=True).past_key_values

        with (
            eah.image_tokens(model, (22, 26)),
            pytest.raises(eah.UnsupportedModelError, match="keys for 30 tokens"),
        ):
            model(second, past_key_values=cache)


def test_an_empty_mask_is_refused() -> None:
    model = tiny.tiny_llama()
    mask = torch.zeros(0, 24, dtype=torch.bool)

    with (
        eah.enabled(model, CONFIG),
        pytest.raises(eah.EAHConfigError, match="not empty"),
        eah.image_tokens(model, mask),
    ):
        logits(model, tiny.text_prompt())
