"""Inputs of low precision: weights are taken in float32, and rounded only where the rule asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import eah
from eah import EAHConfig
from eah.method import column_sums
from eah.visibility import Visibility
from tests.eah import oracle, tiny
from tests.eah.cases import choice_of, make_case, plant_sinks
from tests.eah.tiny import TARGET


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_choose_the_head_of_the_float32_oracle(dtype: torch.dtype) -> None:
    case = plant_sinks(make_case(kv_heads=2, queries=14, image=(3, 8)), 2)
    counts = oracle.sink_counts(oracle.image_means(case, 0), 0.15)
    low = replace(case, query=case.query.to(dtype), key=case.key.to(dtype))

    choice = choice_of(low, Visibility(), EAHConfig(threshold=0.15))

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


@torch.no_grad()
def test_a_layer_rounds_to_the_dtype_of_its_query_for_the_released_code_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sdpa(module: Any, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen[module.layer_idx] = query, key
        return run(module, query, key, *args, **kwargs)

    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    run = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", sdpa)
    model, prompt = tiny.tiny_llama().bfloat16(), tiny.text_prompt()
    model(**prompt)
    query, key = seen[TARGET]
    case = make_case(heads=4, kv_heads=2, queries=24, image=(4, 5), size=8)
    case.query, case.key = query.float(), key.float()
    assert query.dtype == key.dtype == torch.bfloat16

    sums = []  # [h]: of column 4, exact and rounded
    for h in range(4):
        weights = oracle.attention_map(case, 0, h)
        rounded = torch.tensor(weights).bfloat16().tolist()
        sums.append([oracle.column_sum(case, part, 0, 4) for part in (weights, rounded)])
    exact, rounded = max(sums, key=lambda pair: abs(pair[0] - pair[1]) / pair[0])
    between = (exact + rounded) / 2
    assert abs(exact - rounded) > 2e-4 * exact
    counts = []
    # The released divisor of column 4 of the span [4, 5) is 5, and 19 rows see it from behind.
    for rule, divisor in (("paper", 19), ("released_code", 5)):
        config = EAHConfig(rule=rule, threshold=between / divisor, image_span=(4, 5))
        with eah.enabled(model, config) as handle:
            model(**prompt)
        counts.append(handle.report()[0].counts[0])

    assert counts[0] == tuple(int(pair[0] > between) for pair in sums)
    assert counts[1] == tuple(int(pair[1] > between) for pair in sums)
    assert counts[0] != counts[1]
