"""Every method and setting against plain loops: unlike prompts in a batch, prefill and steps."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.var import Var
from tests.models.rivals.oracle import Array, Oracle, find_sinks
from tests.models.rivals.toy import (
    DECO,
    METHODS,
    PROMPTS,
    SINK_DIMS,
    VAR,
    answers,
    as_texts,
    make_llama,
    make_prompts,
    one_prompt,
    run_steps,
)

TOLERANCE = 2e-4
WITH_IMAGE = [index for index, (_, image) in enumerate(PROMPTS) if image]


@cache
def expected(method: DecodingMethod | None) -> list[Array]:
    """Return the oracle's logits of each prompt of the batch."""
    model, prompts = make_llama(), make_prompts()
    return Oracle(model, method).logits(as_texts(model, prompts, answers(prompts)))


def assert_near(found: torch.Tensor, plain: Array, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found.double().numpy(), plain, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", METHODS)
def test_logits_are_those_of_plain_loops(name: str, kernel: str) -> None:
    model, prompts, method = make_llama(kernel), make_prompts(), METHODS[name]

    found = run_steps(model, method, prompts, answers(prompts))

    plain, baseline = expected(method), expected(None)
    for index in range(len(prompts)):
        assert_near(found[index], plain[index])
        changed = np.abs(plain[index] - baseline[index]).max()
        assert changed > 50 * TOLERANCE or not (index in WITH_IMAGE or "non-causal" in name)


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", METHODS)
def test_logits_are_those_of_plain_loops_with_other_seeds(name: str, seed: int) -> None:
    model, prompts, method = make_llama(seed=seed), make_prompts(seed), METHODS[name]

    found = run_steps(model, method, prompts, answers(prompts))

    texts = as_texts(model, prompts, answers(prompts))
    for logits, plain in zip(found, Oracle(model, method).logits(texts), strict=True):
        assert_near(logits, plain)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_adhh_sums_over_the_batch_as_released(kernel: str) -> None:
    method = Adhh("1h0+1h3+2h1+3h2", threshold=0.9, batch_sum=True)
    model, prompts = make_llama(kernel), make_prompts(kinds=[PROMPTS[i] for i in WITH_IMAGE])
    texts = as_texts(model, prompts, answers(prompts))

    found = run_steps(model, method, prompts, answers(prompts))

    alone = Adhh(method.heads, method.threshold)
    summed, by_row = Oracle(model, method).logits(texts), Oracle(model, alone).logits(texts)
    for logits, plain, other in zip(found, summed, by_row, strict=True):
        assert_near(logits, plain)
        assert np.abs(plain - other).max() > 50 * TOLERANCE


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_vars_released_state_is_that_of_the_first_prompt(kernel: str) -> None:
    """Prompts of other lengths and images follow, before and after the first one's again."""
    method = Var(SINK_DIMS, tau=3.0, rho=0.8, summ=0.05, p=0.3, start_layer=1, released=True)
    model, prompts = make_llama(kernel), make_prompts()
    oracle, clean = Oracle(model, method), Oracle(model, VAR)

    for index in (0, 1, 3, 0, 2):
        one, tokens = one_prompt(prompts, index), answers(prompts)[index : index + 1]
        texts = as_texts(model, one, tokens)
        is_first = not oracle.sinks
        (plain,) = oracle.logits(texts)
        (found,) = run_steps(model, method, one, tokens)
        assert_near(found, plain)
        differs = np.abs(plain - clean.logits(texts)[0]).max() > 50 * TOLERANCE
        assert differs == (not is_first and bool(PROMPTS[index][1]))


def test_var_has_visual_and_text_sinks_to_move() -> None:
    """What the other tests rely on."""
    model, prompts = make_llama(), make_prompts()
    texts = as_texts(model, prompts, answers(prompts))
    oracle = Oracle(model, None)

    for text, states in zip(texts, oracle.states(texts), strict=True):
        for layer in range(1, 4):
            maps = type("Maps", (), {"text": text, "inputs": states[layer]})()
            sinks = find_sinks(VAR, maps)
            assert set(sinks) - set(text.image), "text sinks"
            if text.image:
                assert set(sinks) & set(text.image), "visual sinks"
                assert set(text.image) - set(sinks), "image tokens that are none"


@pytest.mark.parametrize("method", [DECO, Deco((0, 2), alpha=4.0, top_p=1.0, top_k=50)], ids=str)
def test_decos_scores_are_those_of_plain_loops(method: Deco) -> None:
    model, prompts = make_llama(), make_prompts()
    tokens = answers(prompts)
    texts = as_texts(model, prompts, tokens)
    oracle = Oracle(model)

    found = run_steps(model, method, prompts, tokens)

    anchors = set()
    for logits, text, states in zip(found, texts, oracle.states(texts), strict=True):
        for place in range(text.prompt - 1, len(text.embeds)):
            early = [oracle.head(states[layer][place]) for layer in method.layers]  # type: ignore[index]
            plain, anchor = decos_scores(method, oracle.head(states[-1][place]), early)
            anchors.add(anchor)
            assert_near(logits[place], plain)
    assert len(anchors) > 1


def decos_scores(method: Deco, final: Array, early: list[Array]) -> tuple[Array, int]:
    """Return the correct_scores scores of one token, and the early layer that was surest."""

    def shares(logits: Array) -> Array:
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())

    candidates: list[int] = []
    mass = 0.0
    for token in sorted(range(len(final)), key=lambda t: -final[t]):
        if mass >= method.top_p or len(candidates) == method.top_k:
            break
        candidates.append(token)
        mass += shares(final)[token]
    surest, anchor = max(
        (shares(logits)[token], -index)
        for index, logits in enumerate(early)
        for token in candidates
    )
    scores = np.full(len(final), -math.inf)
    for token in candidates:
        scores[token] = final[token] + method.alpha * surest * early[-anchor][token]
    return scores, -anchor


@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_several_tokens_in_a_pass_are_as_one_after_the_other(name: str) -> None:
    """As assisted decoding tries them out."""
    model, one = make_llama(), one_prompt(make_prompts(), 0)
    tokens = answers(one)

    with METHODS[name].applied(model, one.image_mask):
        cache = model(**one.inputs, use_cache=True).past_key_values
        found = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[0]

    plain = expected(METHODS[name])[0]
    assert_near(found, plain[one.embeds.shape[1] :])
