"""What arms cost: counted passes, medians of ratios, a file that survives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from eval.run.arm_folder import ArmFolder
from eval.run.costs import ArmCost, BatchCost, arm_costs, measure


def test_passes_of_the_model_are_counted_in_the_block_only() -> None:
    model = nn.Linear(2, 2)
    cost = BatchCost("random/1+3")
    for _ in range(2):  # a batch in two parts
        with measure(model, cost):
            for _ in range(4):
                model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))

    assert (cost.batch, cost.forwards) == ("random/1+3", 8)
    assert cost.seconds > 0
    assert not model._forward_pre_hooks


def test_passes_of_an_inner_model_are_counted() -> None:
    """As where BLIP-2's `generate` runs its language model."""
    config = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1
    )
    outer, cost = nn.Module(), BatchCost("a")
    outer.config, outer.inner = config, LlamaForCausalLM(config)

    with measure(outer, cost):
        outer.inner(torch.zeros(1, 2, dtype=torch.long))

    assert cost.forwards == 1


def test_the_hook_goes_when_a_generation_fails() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="broken"), measure(model, BatchCost("a")):
        raise ValueError("broken")

    assert not model._forward_pre_hooks


def batch(
    name: str, tokens: int, forwards: int, seconds: float, device: str = "cpu", session: str = ""
) -> BatchCost:
    return BatchCost(name, device, tokens, forwards, seconds, session=session)


def test_an_arm_costs_passes_per_token_and_the_median_of_its_times() -> None:
    slow_start = batch("a", 10, 10, 9.0)
    costs = {
        "baseline": [slow_start, batch("b", 10, 10, 1.0), batch("c", 20, 20, 2.0)],
        "opera": [
            batch("a", 10, 21, 3.0),
            batch("b", 10, 21, 3.0),
            batch("c", 20, 42, 5.0),
            batch("d", 10, 21, 1e6),  # the baseline has no such batch
            batch("b", 10, 21, 1e6, device="another"),  # nor on that device
            batch("b", 10, 21, 1e6, session="later"),  # nor in that process
        ],
    }

    found = arm_costs(costs, "baseline")

    assert found["baseline"] == ArmCost(1.0, 1.0, 0, 0)
    assert found["opera"] == ArmCost(2.1, 2.5, 0, 0)


def test_times_are_those_of_another_reference() -> None:
    costs = {"opera": [batch("a", 1, 1, 2.0)], "eah": [batch("a", 1, 1, 3.0)]}

    assert arm_costs(costs, "opera")["eah"].time == 1.5


def test_a_reference_that_took_no_time_is_none() -> None:
    costs = {"baseline": [batch("a", 1, 1, 0.0)], "eah": [batch("a", 1, 1, 3.0)]}

    assert arm_costs(costs, "baseline")["eah"].time is None


def test_reused_prefixes_are_counted_over_all_batches() -> None:
    costs = {"eah": [BatchCost(str(i), prompts=6, reused=5) for i in range(3)]}

    assert arm_costs(costs, "baseline")["eah"] == ArmCost(None, None, 18, 15)


def test_without_a_baseline_or_a_token_nothing_is_claimed() -> None:
    assert arm_costs({"eah": [batch("a", 0, 3, 1.0)]}, "baseline") == {
        "eah": ArmCost(None, None, 0, 0)
    }
    assert arm_costs({"eah": []}, "baseline") == {"eah": ArmCost(None, None, 0, 0)}


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = ArmFolder(tmp_path, "eah")
    folder.write_info({})
    costs = [batch("a", 5, 5, 0.5), batch("b", 5, 5, 0.75)]
    for cost in costs:
        folder.append_cost(cost)
    with (folder.path / "costs.jsonl").open("a") as file:
        file.write('{"batch": "c", "de')

    assert folder.costs() == costs


def test_the_costs_of_all_processes_are_read(tmp_path: Path) -> None:
    costs = [batch(str(index), 5, 5, 0.5) for index in range(3)]
    for index, cost in enumerate(costs):
        folder = ArmFolder(tmp_path, "eah", index)
        folder.write_info({})
        folder.append_cost(cost)

    assert ArmFolder(tmp_path, "eah").costs() == costs
    assert len(list(folder.path.glob("costs.*.jsonl"))) == 3
