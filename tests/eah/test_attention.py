"""The attention function: it delegates to the model's kernel, or says why it can't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import eah
from eah import operators, triton_host
from eah.method import Columns, column_sums
from tests.eah import tiny
from tests.eah.tiny import CONFIG, PADDED_SPAN, SETTINGS, SPAN, TARGET, logits


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_counts_are_those_of_the_maps_that_eager_returns(family: str) -> None:
    # Granite multiplies its scores by a setting, and not by D ** -0.5.
    settings = {**SETTINGS, "attn_implementation": "eager", "attention_multiplier": 0.9}
    model = tiny.tiny_llama("eager")
    if family == "granite":
        model = GraniteForCausalLM(GraniteConfig(**settings)).eval()
    prompt, threshold = tiny.text_prompt(), 0.04

    with torch.no_grad():
        weights = model(**prompt, output_attentions=True).attentions[TARGET][0]
    config = eah.EAHConfig(layers=(TARGET,), threshold=threshold)
    with eah.enabled(model, config) as handle, eah.image_tokens(model, SPAN):
        logits(model, prompt)

    counts = [
        sum(weights[h, y + 1 :, y].mean().item() > threshold for y in range(*SPAN))
        for h in range(4)
    ]
    assert len(set(counts)) > 1
    assert handle.report()[0].counts == (tuple(counts),)


def test_eager_returns_one_map_for_all_heads_of_the_target_layer_only() -> None:
    model, prompt = tiny.tiny_llama("eager"), tiny.text_prompt()

    with torch.no_grad():
        before = model(**prompt, output_attentions=True).attentions
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
            inside = model(**prompt, output_attentions=True).attentions

    head = handle.report()[0].head[0]
    assert head is not None
    torch.testing.assert_close(inside[TARGET], before[TARGET][:, [head] * 4])
    assert torch.equal(inside[0], before[0])
    assert not torch.equal(inside[2][:, 0], inside[2][:, 1])


def test_a_kernel_chosen_while_enabled_is_the_one_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("sdpa ran")

    prompt = tiny.text_prompt()
    eager, model = tiny.tiny_llama("eager"), tiny.tiny_llama("sdpa")
    eah.enable(eager, CONFIG)
    eah.enable(model, CONFIG)
    with eah.image_tokens(eager, SPAN):
        expected = logits(eager, prompt)

    model.set_attn_implementation("eager")
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", refuse)
    with eah.image_tokens(model, SPAN):
        inside = logits(model, prompt)

    assert torch.equal(inside, expected)
    eah.disable(model)
    assert tiny.attention(model).config._attn_implementation == "eager"


def test_a_mask_of_four_dimensions_gives_the_result_of_the_padding_mask() -> None:
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()
    seen = torch.ones(24, 24).tril().bool() & prompt["attention_mask"][:, None, None].bool()
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    position = (prompt["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    outputs, reports = [], []
    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, PADDED_SPAN):
        for mask in (prompt["attention_mask"], seen, additive):
            inputs = {**prompt, "attention_mask": mask, "position_ids": position}
            outputs.append(logits(model, inputs)[:, 5:])
            reports.append(handle.report())

    for output, report in zip(outputs[1:], reports[1:], strict=True):
        torch.testing.assert_close(output[0], outputs[0][0])
        torch.testing.assert_close(output[1], outputs[0][1])
        assert report == reports[0]


def test_padding_rows_do_not_count_also_where_the_mask_opens_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_empty_rows(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen = make_mask(*args, **kwargs)
        return seen | ~seen.any(-1, keepdim=True)

    make_mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    model, prompt = tiny.tiny_llama(), tiny.padded_prompt()

    reports = []
    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, (3, 18)):
        logits(model, prompt)
        reports.append(handle.report())
        # Some versions of transformers do so, as a kernel may not bear an empty row.
        monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "sdpa", open_empty_rows)
        logits(model, prompt)
        reports.append(handle.report())

    assert reports[1] == reports[0]


def test_a_mask_per_head_is_refused() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    prompt["attention_mask"] = torch.ones(24, 24).tril().bool().expand(1, 4, -1, -1)

    with (
        eah.enabled(model, CONFIG),
        eah.image_tokens(model, SPAN),
        pytest.raises(eah.UnsupportedModelError, match="layer 1 has a separate mask for each of 4"),
    ):
        logits(model, prompt)


def test_scores_that_are_not_plain_softmax_are_refused() -> None:
    config = Gemma2Config(**SETTINGS, head_dim=8, attn_implementation="eager")
    model = Gemma2ForCausalLM(config).eval()

    with pytest.raises(
        eah.UnsupportedModelError, match="layer 1: Gemma2Attention passes 'softcap'"
    ):
        eah.enable(model, CONFIG)

    assert not eah.is_enabled(model)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_arguments_that_change_scores_are_refused_where_they_reach_the_kernel(name: str) -> None:
    model, prompt = tiny.tiny_llama("eager"), tiny.text_prompt()

    with eah.enabled(model, CONFIG), eah.image_tokens(model, SPAN):
        with pytest.raises(eah.UnsupportedModelError, match=f"layer 1 passes '{name}'"):
            model(**prompt, **{name: 30.0})
        logits(model, {**prompt, name: None})


def test_a_forced_head_gives_its_map() -> None:
    model, prompt = tiny.tiny_llama("eager"), tiny.text_prompt()

    with torch.no_grad():
        before = model(**prompt, output_attentions=True).attentions[TARGET]
        for head in range(4):
            config = eah.EAHConfig(layers=(TARGET,), threshold=0.999, head=head)
            with eah.enabled(model, config) as handle, eah.image_tokens(model, SPAN):
                inside = model(**prompt, output_attentions=True).attentions[TARGET]
            assert handle.report()[0].head == (head,)
            torch.testing.assert_close(inside, before[:, [head] * 4])


def test_image_columns_are_counted_by_the_kernels_where_they_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ids = tiny.tiny_llama(), torch.randint(3, 60, (2, 24))
    images = []

    def kernels(*args: Any, image: torch.Tensor, **kwargs: Any) -> Columns:
        images.append(image)
        return Columns(
            *(
                part * image.unsqueeze(1) if part.dim() == 3 else part * image
                for part in column_sums(*args, **kwargs)
            )
        )

    def run() -> Any:
        with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN), torch.no_grad():
            model(ids)
        return handle.report()

    expected = run()
    monkeypatch.setattr(operators, "is_usable", lambda tensor, *_: tensor.dim() == 4)  # the query
    monkeypatch.setattr(operators, "column_sums", kernels)

    assert run() == expected
    assert len(images) == 1
    assert images[0].sum().item() == 2 * (SPAN[1] - SPAN[0])


def test_the_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    query: Any = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32, shape=(4,))
    monkeypatch.setattr(triton_host, "_runs", lambda *_: True)
    assert triton_host.is_usable(query) is (torch.version.hip is None)

    monkeypatch.setenv("EAH_TRITON", "0")

    assert not triton_host.is_usable(query)
