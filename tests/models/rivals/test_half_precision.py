"""Half precision: every method runs, and stays near float32."""

from __future__ import annotations

import pytest
import torch

from models.decoding.base import DecodingMethod
from models.generation import EncodedPrompts
from tests.models.rivals.toy import (
    DECO,
    METHODS,
    answers,
    make_llama,
    make_prompts,
    run_steps,
)

ALL: dict[str, DecodingMethod] = {**METHODS, "deco": DECO}
# Thresholds and ranks may flip in single rows, so that the bound is one of nearly all logits.
SHARE, NEAR = 0.85, {torch.bfloat16: 0.25, torch.float16: 0.03}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_logits_are_near_those_of_float32(name: str, dtype: torch.dtype, kernel: str) -> None:
    prompts = make_prompts()
    tokens = answers(prompts)
    half = make_llama(kernel).to(dtype)
    same = make_llama(kernel)
    same.load_state_dict(half.state_dict())  # rounded weights, in float32
    embeds = prompts.embeds.to(dtype)
    rounded = EncodedPrompts(embeds, prompts.attention_mask, prompts.image_mask)
    exact = EncodedPrompts(embeds.float(), prompts.attention_mask, prompts.image_mask)

    found = torch.cat(run_steps(half, ALL[name], rounded, tokens))

    expected = torch.cat(run_steps(same, ALL[name], exact, tokens))
    kept = expected.isfinite() & found.isfinite()
    assert found.dtype == dtype or name == "deco"  # its scores are float32, as in `generate`
    assert not found.isnan().any()
    assert (expected.isfinite() == found.isfinite()).float().mean() > SHARE
    apart = (found.float() - expected)[kept].abs()
    assert (apart < NEAR[dtype]).float().mean() > SHARE
