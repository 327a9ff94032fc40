"""`eah.observe` counts in any layer and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits

THRESHOLD = 0.05
PAPER = eah.EAHConfig(threshold=THRESHOLD)


@pytest.fixture(params=tiny.KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def maps_of(model: Any, prompt: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model(**prompt, output_attentions=True).attentions


def test_nothing_changes(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)
    before, generated = logits(model, prompt), tiny.tokens(model, prompt)

    with eah.observe(model):
        assert torch.equal(logits(model, prompt), before)
        assert torch.equal(tiny.tokens(model, prompt), generated)
        assert not eah.is_enabled(model)

    assert torch.equal(logits(model, prompt), before)
    assert tiny.attention(model).config._attn_implementation != "eah"


def test_every_number_is_that_of_plain_eager_attention(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)
    maps = maps_of(tiny.tiny_llava("eager"), prompt)

    with eah.observe(model, config=PAPER) as seen:
        logits(model, prompt)
    reports = seen.report()

    assert [report.layer for report in reports] == [0, 1, 2] == list(seen.layers)
    for report in reports:
        assert report.image_tokens == (IMAGE_TOKENS,) * 2
        for b in range(2):
            for h in range(4):
                weights = maps[report.layer][b, h]
                means = [weights[y + 1 :, y].mean().item() for y in range(*SPAN)]
                sinks = sum(mean > THRESHOLD for mean in means)
                assert report.sinks[b][h] == sinks
                assert report.density[b][h] == pytest.approx(sinks / IMAGE_TOKENS)
                assert report.image_attention[b][h] == pytest.approx(sum(means), rel=1e-4)
                torch.testing.assert_close(report.means[b][h], torch.tensor(means))


def test_rules_are_reported_as_they_choose(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt(2)

    with eah.observe(model, layers=(1,)) as seen:
        logits(model, prompt)
    heads = seen.report()[0].heads
    assert heads is not None

    for rule, preset in (("paper", "paper"), ("scale_free", "scale-free")):
        config = eah.EAHConfig.preset(preset)
        with eah.enabled(model, config) as handle:
            logits(model, prompt)
        assert heads[rule] == handle.report()[0].head
    config = eah.EAHConfig.preset("released-code", layers=(1,), image_span=SPAN)
    with eah.enabled(model, config) as handle:
        logits(model, prompt)
    assert heads["released_code"] == handle.report()[0].head
    assert set(heads) == {"paper", "scale_free", "released_code", "config"}


def test_a_layer_that_eah_changes_is_observed_as_it_was(kernel: str) -> None:
    model, prompt = tiny.tiny_llava(kernel), tiny.image_prompt()

    with eah.observe(model) as alone:
        logits(model, prompt)
    with eah.enabled(model, CONFIG) as handle:
        inside = logits(model, prompt)
        with eah.observe(model) as seen:
            assert torch.equal(logits(model, prompt), inside)
            assert handle.report()[0].counts == seen.report()[1].sinks
        assert torch.equal(logits(model, prompt), inside)

    for layer in (0, 1):
        torch.testing.assert_close(seen.report()[layer].means[0], alone.report()[layer].means[0])
    assert not torch.allclose(seen.report()[2].means[0], alone.report()[2].means[0])
    assert seen.config == CONFIG


def test_observers_and_eah_may_end_in_any_order() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    before = logits(model, prompt)

    with eah.observe(model, layers=(0,)) as first:
        with eah.observe(model, layers=(0, 2)) as second:
            eah.enable(model, CONFIG)
            logits(model, prompt)
        assert [len(seen.report()) for seen in (first, second)] == [1, 2]
        logits(model, prompt)
        assert first.report()[0].sinks
    inside = logits(model, prompt)
    assert eah.is_enabled(model)
    eah.disable(model)

    assert not torch.allclose(inside, before)
    assert torch.equal(logits(model, prompt), before)
    assert "generate" not in model.__dict__
    assert not model._forward_hooks


def test_a_prompt_without_an_image_is_reported_so() -> None:
    model = tiny.tiny_llava()

    with eah.observe(model) as seen:
        assert seen.report() == []
        logits(model, tiny.text_prompt())
        assert {report.skipped for report in seen.report()} == {"the prompt has no image tokens"}
        logits(model, {"inputs_embeds": torch.randn(1, 24, 32)})
        assert "not known" in str(seen.report()[0].skipped)


def test_a_layer_that_is_not_there_is_refused() -> None:
    model = tiny.tiny_llava()
    before = dict(model.__dict__)

    with (
        pytest.raises(eah.EAHConfigError, match=r"no layer 7 .* that can be patched: 0..2"),
        eah.observe(model, layers=(7,)),
    ):
        pass

    assert dict(model.__dict__).keys() == before.keys()


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements of a float tensor, and any full map."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.maps = tokens, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for found in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(found, torch.Tensor) and found.dim() >= 3:
                heads, rows, keys = found.shape[-3:]
                self.maps += heads > 1 and rows == keys == self.tokens
        return output


def test_no_map_of_a_whole_prompt_is_made() -> None:
    tokens = 640
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=32, num_key_value_heads=32, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(3, 60, (1, tokens))
    before = logits(model, {"input_ids": ids})

    with (
        eah.observe(model) as seen,
        eah.image_tokens(model, (34, 610)),
        LargestTensor(tokens) as mode,
    ):
        after = logits(model, {"input_ids": ids})

    assert mode.maps == 0
    assert torch.equal(after, before)
    assert seen.report()[1].image_tokens == (576,)
