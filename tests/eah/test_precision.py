"""Inputs of low precision: weights are taken in float32, and rounded only where the rule asks."""

from __future__ import annotations

import pytest
import torch

from eah.modeling_llama_eah import SinkRule, Visibility, column_sums, densest_head
from tests.eah import oracle
from tests.eah.cases import make_case, plant_sinks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_choose_the_head_of_the_float32_oracle(dtype: torch.dtype) -> None:
    case = plant_sinks(make_case(kv_heads=2, queries=14, image=(3, 8)), 2)
    rule = SinkRule(threshold=0.15)
    counts = oracle.sink_counts(oracle.image_means(case, 0), rule.threshold)

    choice = densest_head(
        case.query.to(dtype),
        case.key.to(dtype),
        Visibility(),
        torch.tensor(case.image),
        rule,
        scaling=case.scaling,
    )

    assert sorted(counts)[-1] - sorted(counts)[-2] >= 2  # the margin
    assert choice.head.tolist() == [oracle.densest(counts, 5)] == [2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_low_precision_inputs_are_taken_in_float32(dtype: torch.dtype) -> None:
    case = make_case(kv_heads=2)
    query, key = case.query.to(dtype), case.key.to(dtype)
    case.query, case.key = query.float(), key.float()

    sums = column_sums(query, key, Visibility(), scaling=case.scaling)

    for h in range(4):
        weights = oracle.attention_map(case, 0, h)
        expected = [oracle.column_sum(case, weights, 0, y) for y in range(10)]
        torch.testing.assert_close(sums.attention[0, h], torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_the_same_under_autocast(dtype: torch.dtype) -> None:
    case = make_case(kv_heads=2)
    arguments = (case.query, case.key, Visibility())

    with torch.autocast("cpu", dtype=dtype):
        assert torch.matmul(case.query, case.query.mT).dtype == dtype
        under = column_sums(*arguments, scaling=case.scaling)

    for found, expected in zip(under, column_sums(*arguments, scaling=case.scaling), strict=True):
        assert torch.equal(found, expected)


def test_rounding_rounds_each_weight_before_the_sum() -> None:
    case = make_case()
    rounding = torch.bfloat16

    sums = column_sums(case.query, case.key, Visibility(), scaling=case.scaling, rounding=rounding)

    for h in range(4):
        rounded = torch.tensor(oracle.attention_map(case, 0, h)).to(rounding).tolist()
        expected = [oracle.column_sum(case, rounded, 0, y) for y in range(10)]
        torch.testing.assert_close(sums.attention[0, h], torch.tensor(expected))


def test_the_rule_rounds_to_the_dtype_of_the_query() -> None:
    case = make_case(heads=1, kv_heads=1, image=(4, 5))
    query, key = case.query.bfloat16(), case.key.bfloat16()
    case.query, case.key = query.float(), key.float()
    weights = oracle.attention_map(case, 0, 0)
    exact = oracle.column_mean(case, weights, 0, 4)
    rounded = oracle.column_mean(case, torch.tensor(weights).bfloat16().tolist(), 0, 4)
    rules = [
        SinkRule(threshold=(exact + rounded) / 2, rounding=rounding)
        for rounding in ("none", "query-dtype")
    ]

    counts = [
        densest_head(
            query, key, Visibility(), torch.tensor(case.image), rule, scaling=case.scaling
        ).counts.item()
        for rule in rules
    ]

    assert counts == [int(exact > rounded), int(rounded > exact)]
    assert abs(exact - rounded) > 1e-5
