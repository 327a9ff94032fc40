"""What methods cost: counted passes, medians of ratios, a file that survives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from eval.run.costs import BatchCost, append_cost, cost_cells, measured, read_costs
from eval.run.processes import Place


def test_passes_of_the_model_are_counted_in_the_block_only() -> None:
    model = nn.Linear(2, 2)
    cost = BatchCost("eah", 3)
    for _ in range(2):  # a batch in two parts
        with measured(model, cost):
            for _ in range(4):
                model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))

    assert (cost.method, cost.batch, cost.forwards) == ("eah", 3, 8)
    assert cost.seconds > 0
    assert not model._forward_pre_hooks


def test_the_hook_goes_when_a_generation_fails() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="broken"), measured(model, BatchCost("eah", 0)):
        raise ValueError("broken")

    assert not model._forward_pre_hooks


def test_cells_are_forwards_per_token_and_the_median_ratio() -> None:
    costs = [
        BatchCost("baseline", 0, tokens=10, forwards=10, seconds=9.0),  # a slow start
        BatchCost("baseline", 1, tokens=10, forwards=10, seconds=1.0),
        BatchCost("baseline", 2, tokens=20, forwards=20, seconds=2.0),
        BatchCost("opera", 0, tokens=10, forwards=21, seconds=3.0),
        BatchCost("opera", 1, tokens=10, forwards=21, seconds=3.0),
        BatchCost("opera", 2, tokens=20, forwards=42, seconds=5.0),
        BatchCost("opera", 3, tokens=10, forwards=21, seconds=1e6),  # no baseline
    ]

    cells = cost_cells(costs)

    assert [cells["baseline"][:2], cells["opera"][:2]] == [["1.00", "1.00"], ["2.10", "2.50"]]


def test_reused_prefixes_are_counted_over_all_batches() -> None:
    costs = [BatchCost("eah", i, prompts=6, reused=5) for i in range(3)]

    assert cost_cells(costs)["eah"][2] == "15 of 18"


def test_without_a_baseline_or_a_token_nothing_is_claimed() -> None:
    assert cost_cells([BatchCost("eah", 0, 0, 3, 1.0)]) == {"eah": ["-", "-", "-"]}


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    costs = [BatchCost("baseline", 0, 5, 5, 0.5), BatchCost("eah", 0, 5, 5, 0.75)]
    for cost in costs:
        append_cost(tmp_path, cost, Place())
    with (tmp_path / "costs.jsonl").open("a") as file:
        file.write('{"method": "eah", "ba')

    assert read_costs(tmp_path) == costs


def test_the_costs_of_all_processes_are_read(tmp_path: Path) -> None:
    costs = [BatchCost("baseline", index, 5, 5, 0.5) for index in range(3)]
    for index, cost in enumerate(costs):
        append_cost(tmp_path, cost, Place(index, 3))

    assert read_costs(tmp_path) == costs
    assert len(list(tmp_path.iterdir())) == 3
    assert read_costs(tmp_path / "nowhere") == []
