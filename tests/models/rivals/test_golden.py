"""The reference code's logits and tokens, of every method, with both kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from tests.models.rivals.golden import Golden, Steps, golden, run

BOTH = ("prompt0", "prompt1")
MIDDLE = (1, 2, 3)
HEADS = "1h0+1h3+2h1+3h2+4h0+4h1"
DIMS = (13, 50)
SPIN_75 = Spin(MIDDLE, kept=0.75, scale=0.0, released=True)
SPIN_50 = Spin(MIDDLE, kept=0.5, scale=0.08, released=True)
VAR = Var(DIMS, tau=5.0)
STRONG = tuple(range(14, 30))

# File, run, our settings of it, its prompts, and the largest difference of logits.
RUNS: list[tuple[str, str, DecodingMethod, tuple[str, ...], float]] = [
    ("hgai_11", "baseline", Hgai(MIDDLE, alpha=0.0), BOTH, 2e-4),
    ("hgai_11", "a05", Hgai(MIDDLE, alpha=0.5), BOTH, 2e-4),
    ("hgai_11", "as_released_sdpa.a05", Hgai(MIDDLE, alpha=0.5, causal=False), BOTH, 2e-4),
    ("spin_11", "baseline", replace(SPIN_75, kept=1.0), BOTH, 2e-4),
    ("spin_11", "r75", SPIN_75, BOTH, 2e-4),
    ("spin_11", "r50s", SPIN_50, BOTH, 2e-4),
    ("spin_11", "as_released_sdpa.r75", replace(SPIN_75, causal=False), BOTH, 2e-4),
    ("spin_11", "as_released_sdpa.r50s", replace(SPIN_50, causal=False), BOTH, 2e-4),
    ("vaf_21", "baseline", Vaf((1, 2), 1.0, 1.0), BOTH[:1], 2e-4),
    ("vaf_21", "published", Vaf((1, 2)), BOTH[:1], 2e-4),
    ("vaf_21", "strong", Vaf((1, 2), 1.6, 0.5), BOTH[:1], 2e-4),
    ("adhh_31", "baseline", Adhh("none"), BOTH, 2e-4),
    ("adhh_31", "t40", Adhh(HEADS, 0.4), BOTH, 2e-4),
    ("adhh_31", "t25", Adhh(HEADS, 0.25), BOTH, 2e-4),
    ("var_41", "baseline", replace(VAR, p=1.0), BOTH, 2e-4),
    ("var_41", "first", VAR, BOTH, 2e-4),
    ("var_41", "first_rho80_summ05_p25", replace(VAR, rho=0.8, summ=0.05, p=0.25), BOTH[:1], 2e-4),
    ("deco_51", "published", Deco(), BOTH, 1e-3),
    ("deco_51", "strong", Deco(STRONG, alpha=3.0, top_p=0.8, top_k=10), BOTH, 1e-3),
]


def steps(of: Golden, name: str) -> Steps:
    """Return what the reference made of a prompt; its last rows only where it kept no others."""
    tensors = of.tensors
    prefill = tensors.get(f"{name}.prefill_logits", tensors.get(f"{name}.prefill_logits_last24"))
    if prefill is None:  # DeCo changes the scores of the last row alone
        prefill = tensors.get(f"{name}.raw_step_logits", tensors[f"{name}.step_logits"])[:1]
    return Steps(prefill, tensors[f"{name}.step_logits"], tensors[f"{name}.tokens"].tolist())


def assert_same(found: Steps, expected: Steps, tolerance: float) -> None:
    assert found.tokens == expected.tokens
    last = found.prefill[-len(expected.prefill) :]
    torch.testing.assert_close(last, expected.prefill, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.logits, expected.logits, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("file", "name", "method", "prompts", "tolerance"), RUNS, ids=[f"{r[0]}-{r[1]}" for r in RUNS]
)
def test_logits_and_tokens_are_those_of_the_reference(
    file: str,
    name: str,
    method: DecodingMethod,
    prompts: tuple[str, ...],
    tolerance: float,
    kernel: str,
) -> None:
    reference = golden(file)
    model = reference.model(kernel)

    for prompt in prompts:
        expected = steps(reference, f"{prompt}.{name}")
        embeds, image = reference.embeds(prompt), reference.image(prompt)
        found = run(model, method, embeds, image, len(expected.tokens))
        assert_same(found, expected, tolerance)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_vars_released_state_is_that_of_the_first_prompt(kernel: str) -> None:
    reference, method = golden("var_41"), replace(VAR, released=True)
    model = reference.model(kernel)

    for prompt, name in (("prompt0", "first"), ("prompt1", "after_prompt0_as_released")):
        expected = steps(reference, f"{prompt}.{name}")
        embeds, image = reference.embeds(prompt), reference.image(prompt)
        assert_same(run(model, method, embeds, image, len(expected.tokens)), expected, 2e-4)


@pytest.mark.parametrize("name", ["published", "strong"])
def test_decos_beams_are_those_of_the_reference(name: str) -> None:
    reference = golden("deco_51")
    method = next(run[2] for run in RUNS if run[:2] == ("deco_51", name))
    model = reference.model("eager")

    for prompt in BOTH:
        embeds = reference.embeds(prompt)
        with method.applied(model) as processors, torch.inference_mode():
            tokens = model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                num_beams=3,
                do_sample=False,
                max_new_tokens=reference.about["steps"],
                logits_processor=processors,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert tokens[0].tolist() == reference.tensors[f"{prompt}.{name}.beam3_tokens"].tolist()
