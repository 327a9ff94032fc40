"""Kernels that are no torch functions get the shared head, their own mask and their own config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers import MistralConfig, MistralForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, PADDED_SPAN, SETTINGS, SPAN, logits

IN_TWO_PARTS = torch.zeros(1, 24, dtype=torch.bool)  # a mask may reach past the first part
IN_TWO_PARTS[:, slice(*SPAN)] = True


class FakeFlash:
    """A kernel as flash attention is one: a padding mask or none, and it reads module.config."""

    def __init__(self) -> None:
        self.masks: list[torch.Tensor | None] = []
        self.layers: list[int] = []

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        assert module.config._attn_implementation == "flash_attention_2"
        assert attention_mask is None or attention_mask.dim() == 2
        self.masks.append(attention_mask)
        self.layers.append(module.layer_idx)
        x, y = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
        seen = (y <= x + key.shape[2] - query.shape[2])[None, None]
        if sliding_window is not None:
            seen = seen & (y > x + key.shape[2] - query.shape[2] - sliding_window)
        if attention_mask is not None:
            seen = seen & attention_mask[:, None, None].bool()
        output = F.scaled_dot_product_attention(
            query, key, value, seen, scale=scaling, enable_gqa=True
        )
        return output.nan_to_num().transpose(1, 2), None


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> FakeFlash:
    kernel = FakeFlash()
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", kernel)
    return kernel


def with_flash(model: nn.Module) -> nn.Module:
    model.config._attn_implementation = "flash_attention_2"
    return model


@pytest.mark.parametrize("padded", [False, True])
def test_flash_attention_gets_the_shared_head_and_gives_the_result_of_sdpa(
    flash: FakeFlash, padded: bool
) -> None:
    prompt = tiny.padded_prompt() if padded else tiny.text_prompt(2)
    models = {"sdpa": tiny.tiny_llama(), "flash": with_flash(tiny.tiny_llama())}

    outputs, reports = [], []
    for model in models.values():
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, PADDED_SPAN):
            outputs.append(logits(model, prompt)[:, 5:])
        reports.append(handle.report())

    torch.testing.assert_close(outputs[1], outputs[0])
    assert reports[1] == reports[0]
    assert flash.layers == [0, 1, 2]
    assert [mask is not None for mask in flash.masks] == [padded] * 3
    plain = logits(models["flash"], prompt)[:, 5:]
    assert (outputs[1] - plain).abs().max() > 0.1


def test_flash_attention_with_a_sliding_window_counts_what_sdpa_counts(flash: FakeFlash) -> None:
    models = [
        MistralForCausalLM(MistralConfig(**SETTINGS, sliding_window=6)).eval() for _ in range(2)
    ]
    models[1].load_state_dict(models[0].state_dict())
    with_flash(models[1])
    prompt = tiny.text_prompt()

    outputs, reports = [], []
    for model in models:
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
            outputs.append(logits(model, prompt))
        reports.append(handle.report())

    torch.testing.assert_close(outputs[1], outputs[0])
    assert reports[1] == reports[0]
    assert flash.masks == [None] * 3


def test_flash_attention_after_cached_text_counts_what_the_whole_prompt_does(
    flash: FakeFlash,
) -> None:
    model, ids = with_flash(tiny.tiny_llama()), tiny.text_prompt()["input_ids"]

    with torch.no_grad(), eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        model(input_ids=ids)
        whole = handle.report()
    with (
        torch.no_grad(),
        eah.enabled(model, CONFIG) as handle,
        eah.image_tokens(model, IN_TWO_PARTS),
    ):
        cache = model(input_ids=ids[:, :2], use_cache=True).past_key_values
        model(input_ids=ids[:, 2:], past_key_values=cache)

    assert handle.report() == whole
    assert flash.masks == [None] * 9


def fake_flex(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    assert module.config._attn_implementation == "flex_attention"
    seen = create_mask(
        attention_mask.mask_mod, len(query), 1, query.shape[2], key.shape[2], device="cpu"
    )
    output = F.scaled_dot_product_attention(query, key, value, seen, scale=scaling, enable_gqa=True)
    return output.nan_to_num().transpose(1, 2), None


@pytest.mark.parametrize("padded", [False, True])
def test_flex_attention_gets_the_shared_head_and_gives_the_result_of_sdpa(
    monkeypatch: pytest.MonkeyPatch, padded: bool, uncompiled_flex: None
) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", fake_flex)
    prompt = tiny.padded_prompt() if padded else tiny.text_prompt(2)
    sdpa, flex = tiny.tiny_llama(), tiny.tiny_llama()
    flex.config._attn_implementation = "flex_attention"

    outputs, reports = [], []
    for model in (sdpa, flex):
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, PADDED_SPAN):
            outputs.append(logits(model, prompt)[:, 5:])
        reports.append(handle.report())

    torch.testing.assert_close(outputs[1], outputs[0])
    assert reports[1] == reports[0]
