"""Attention that is not plainly causal: what EAH counts is what the kernel sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

import eah
from tests.eah import tiny
from tests.eah.tiny import SETTINGS, SPAN, TARGET, logits

THRESHOLD = 0.05
CONFIG = eah.EAHConfig(layers=(TARGET,), threshold=THRESHOLD)
TOKENS = 24


def prefix_lm(prefix: int) -> torch.Tensor:
    """Return the keys that rows see where a prefix sees all of itself, (1, 1, Q, K) bool."""
    seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    seen[:prefix, :prefix] = True
    return seen[None, None]


def counts_by_loops(weights: torch.Tensor, seen: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Count sinks in maps (B, H, Q, K) given what rows see, (Q, K)."""
    batch = []
    for maps in weights:
        heads = []
        for head in maps:
            sinks = 0
            for y in range(*SPAN):
                rows = [x for x in range(TOKENS) if x != y and seen[x, y]]
                sinks += sum(head[x, y].item() for x in rows) / len(rows) > THRESHOLD
            heads.append(sinks)
        batch.append(tuple(heads))
    return tuple(batch)


def expected(mask: torch.Tensor) -> tuple[torch.Tensor, Any, int]:
    """Return the eager model's logits with the densest head shared, the counts and the head."""
    model, prompt = tiny.tiny_llama("eager"), {**ids(), "attention_mask": mask}
    with torch.no_grad():
        weights = model(**prompt, output_attentions=True).attentions[TARGET]
    counts = counts_by_loops(weights, mask[0, 0] > -1 if mask.dtype != torch.bool else mask[0, 0])
    head = max(range(4), key=lambda h: (counts[0][h], -h))
    forced = eah.EAHConfig(layers=(TARGET,), head=head)
    with eah.enabled(model, forced), eah.image_tokens(model, SPAN):
        return logits(model, prompt), counts, head


def ids() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {"input_ids": torch.randint(3, 60, (1, TOKENS), generator=generator)}


def found(model: PreTrainedModel, prompt: dict[str, torch.Tensor]) -> tuple[Any, Any, int]:
    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        output = logits(model, prompt)
    (report,) = handle.report()
    return output, report.counts, report.head[0]


def additive(seen: torch.Tensor, lowest: float) -> torch.Tensor:
    return torch.zeros(seen.shape).masked_fill(~seen, lowest)


@pytest.mark.parametrize("kernel", tiny.KERNELS)
@pytest.mark.parametrize("lowest", [None, -1e4, -1e9, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("prefix", [0, 12, TOKENS])
def test_masks_of_four_dimensions_are_counted_as_they_are(
    kernel: str, lowest: float | None, prefix: int
) -> None:
    mask = prefix_lm(prefix)
    wanted = expected(additive(mask, torch.finfo(torch.float32).min))
    given = mask if lowest is None else additive(mask, lowest)
    if kernel == "eager" and lowest is None:
        pytest.skip("eager attention adds its masks")

    output, counts, head = found(tiny.tiny_llama(kernel), {**ids(), "attention_mask": given})

    assert (counts, head) == wanted[1:]
    torch.testing.assert_close(output, wanted[0])
    assert len(set(counts[0])) > 1


def test_a_kernel_that_is_told_to_be_bidirectional_is_counted_so() -> None:
    model = tiny.tiny_llama("sdpa")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False

    output, counts, head = found(model, ids())

    wanted = expected(torch.zeros(1, 1, TOKENS, TOKENS))
    assert (counts, head) == wanted[1:]
    torch.testing.assert_close(output, wanted[0])


def test_scoring_an_answer_that_its_prompt_sees_is_refused() -> None:
    model = tiny.tiny_llama("sdpa")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False

    with (
        eah.enabled(model, CONFIG),
        eah.image_tokens(model, SPAN),
        eah.prompt_length(model, 20),
        pytest.raises(eah.EAHStateError, match="attend to its answer"),
    ):
        logits(model, ids())


def gemma(kernel: str) -> PreTrainedModel:
    torch.manual_seed(1)
    settings = {**SETTINGS, "head_dim": 16, "sliding_window": 9, "attn_implementation": kernel}
    layers = ["full_attention", "sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**settings, layer_types=layers)).eval()


@pytest.mark.parametrize("kernel", ["sdpa", "flex_attention"])
def test_windows_and_padding_are_those_of_eager_attention(
    kernel: str, uncompiled_flex: None
) -> None:
    prompt = tiny.padded_prompt()
    reports, outputs = [], []
    for name in ("eager", kernel):
        model = gemma(name)
        config = eah.EAHConfig.preset("scale-free", threshold=0.95)
        with eah.enabled(model, config) as handle, eah.image_tokens(model, (3, 15)):
            outputs.append(logits(model, prompt))
        reports.append(handle.report())

    assert reports[1] == reports[0]
    assert len(set(reports[0][0].counts[1])) > 1
    torch.testing.assert_close(outputs[1][0, 5:], outputs[0][0, 5:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs[1][1], outputs[0][1], rtol=1e-4, atol=1e-4)
