"""Additive masks hide keys by many values; each gives what the bool mask gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import eah
from eah import EAHConfig
from eah.method import Columns, choose, column_sums
from eah.prompt import token_mask as tokens_of_mask
from eah.visibility import HIDDEN_BIAS, Visibility, is_visible
from tests.eah import oracle, tiny
from tests.eah.cases import all_means, make_case, seen_keys, token_mask, told
from tests.eah.oracle import Prefill

Sums = Callable[..., Columns]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HIDDEN = {"-1e9": -1e9, "-1e4": -1e4, "lowest": None, "-inf": float("-inf"), "-100": -100.0}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"queries": 12, "image": (3, 9)},
    "padded, grouped heads": {
        "batch": 2, "kv_heads": 2, "padding": (3, 0), "queries": 14, "image": (2, 9),
    },
    "padded, cached text": {
        "batch": 2, "padding": (2, 0), "queries": 10, "cached": 5, "image": (3, 11),
    },
    "sliding window": {"queries": 14, "window": 5, "image": (3, 9)},
}  # fmt: skip


@pytest.fixture(params=["torch", "Triton"])
def sums(request: pytest.FixtureRequest) -> Sums:
    """Return what sums image columns: torch or the kernels."""
    if request.param == "Triton":
        run: Sums = request.getfixturevalue("kernel")
        return run

    def by_torch(*args: Any, image: torch.Tensor, **kwargs: Any) -> Columns:
        found = column_sums(*args, **kwargs)
        return Columns(found.attention * image[:, None], found.uniform * image, found.rows * image)

    return by_torch


def additive(seen: torch.Tensor, hidden: str, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask of 0 where a key is seen; float16 makes -inf of -1e9."""
    value = HIDDEN[hidden] or torch.finfo(dtype).min
    return torch.where(seen, torch.tensor(0.0), torch.tensor(value)).to(dtype)


def summed(sums: Sums, case: Prefill, mask: torch.Tensor) -> Columns:
    image = torch.tensor(case.image)
    visibility = Visibility(case.offset, mask=mask)
    return sums(case.query, case.key, visibility, scaling=case.scaling, image=image)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_the_bool_mask(
    sums: Sums, name: str, hidden: str, dtype: torch.dtype
) -> None:
    case = make_case(**CASES[name])
    seen = seen_keys(case)

    found = summed(sums, case, additive(seen, hidden, dtype))

    expected = summed(sums, case, seen)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found.rows, expected.rows)
    assert expected.attention.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("rule", ["paper", "scale_free"])
def test_counts_and_heads_are_those_of_the_bool_mask_and_of_the_loops(
    sums: Sums, rule: str, hidden: str, dtype: torch.dtype
) -> None:
    case = make_case(**CASES["padded, grouped heads"])
    seen, image = seen_keys(case), torch.tensor(case.image)
    means = all_means(case, relative=rule == "scale_free")
    threshold = oracle.threshold_with_margin([row for rows in means for row in rows])
    assert oracle.margin([row for rows in means for row in rows], threshold) > 1e-5
    config = EAHConfig(rule=rule, threshold=threshold)

    found = choose(summed(sums, case, additive(seen, hidden, dtype)), image, config)

    expected = choose(summed(sums, case, seen), image, config)
    assert torch.equal(found.counts, expected.counts)
    assert torch.equal(found.head, expected.head)
    for b in range(2):
        counts = oracle.sink_counts(means[b], threshold)
        received = None
        if rule == "scale_free":
            received = [sum(row) for row in oracle.image_means(case, b)]
        assert found.counts[b].tolist() == counts
        assert found.head[b].item() == oracle.densest(counts, 7, received=received)
    assert (found.head >= 0).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_mask_with_padding_told_apart_gives_the_same(
    sums: Sums, hidden: str, dtype: torch.dtype
) -> None:
    case = make_case(**CASES["padded, grouped heads"])
    seen, valid, image = seen_keys(case), token_mask(case), torch.tensor(case.image)
    opened = seen | ~seen.any(-1, keepdim=True)  # rows of padding see everything
    visibility = Visibility(mask=additive(opened, hidden, dtype), valid=valid)

    found = sums(case.query, case.key, visibility, scaling=case.scaling, image=image)

    torch.testing.assert_close(found, summed(sums, case, seen))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [-40.0, -30.0, -2.5, 3.0])
def test_a_bias_that_does_not_hide_leaves_the_key_seen(
    sums: Sums, bias: float, dtype: torch.dtype
) -> None:
    case = make_case(queries=12, image=(3, 9))
    biases = torch.zeros(12, 12)
    biases[:, 5] = bias
    case.bias = biases.tolist()
    seen, image = seen_keys(case), torch.tensor(case.image)
    mask = additive(seen, "-1e4", dtype) + torch.where(seen, biases, 0.0).to(dtype)

    found = summed(sums, case, mask)

    torch.testing.assert_close(found.rows, summed(sums, case, seen).rows)
    for h in range(4):
        weights = oracle.attention_map(case, 0, h)
        expected = [
            oracle.column_sum(case, weights, 0, y) if image[0, y] else 0.0 for y in range(12)
        ]
        torch.testing.assert_close(found.attention[0, h], torch.tensor(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_key_is_hidden_from_a_bias_of_minus_fifty_down(dtype: torch.dtype) -> None:
    mask = torch.tensor([0.0, -49.5, -50.0, -50.5, -100.0, float("-inf")], dtype=dtype)

    assert HIDDEN_BIAS == -50
    assert is_visible(mask).tolist() == [True, True, False, False, False, False]
    assert is_visible(torch.tensor([True, False])).tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("name", CASES)
def test_padding_is_read_from_any_mask_of_four_dimensions(
    name: str, hidden: str, dtype: torch.dtype
) -> None:
    case = make_case(**CASES[name])
    _, _, queries, _ = case.shape

    for mask in (seen_keys(case), additive(seen_keys(case), hidden, dtype)):
        found = tokens_of_mask(mask, case.offset, queries)

        assert torch.equal(found, token_mask(case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_model_reports_for_an_additive_mask_what_it_does_for_the_bool_mask(
    hidden: str, dtype: torch.dtype
) -> None:
    model, prompt = tiny.tiny_llama().to(dtype), tiny.text_prompt()
    seen = torch.ones(1, 1, 24, 24, dtype=torch.bool).tril()
    seen[..., 20:, 5:9] = False  # image tokens that the last rows don't see

    reports, outputs = [], []
    with eah.enabled(model, tiny.CONFIG) as handle, eah.image_tokens(model, tiny.SPAN):
        for mask in (None, seen, additive(seen, hidden, dtype)):
            outputs.append(tiny.logits(model, {**prompt, "attention_mask": mask}))
            reports.append(handle.report())

    assert reports[2] == reports[1] != reports[0]
    assert reports[1][0].head[0] is not None
    torch.testing.assert_close(outputs[2], outputs[1])


def test_the_ways_of_telling_a_mask_hide_the_same_keys() -> None:
    case = make_case(**CASES["padded, grouped heads"])
    device = torch.device("cpu")

    shown = [told(case, way).visible(0, 14, 14, device) for way in ("causal", "additive mask")]

    for found in shown:
        # What rows of padding see does not matter: they don't count.
        assert torch.equal(found[token_mask(case)], seen_keys(case)[:, 0][token_mask(case)])
