"""What each method costs: forward passes per generated token, and time against the baseline.

Measured batch by batch while a run goes on and kept in `costs.jsonl` of its folder, beside the
answers and not among them: answers repeat, times do not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from eval.files.writing import writing
from eval.run.folder import part_of
from eval.run.processes import Place

COSTS: Final = "costs.jsonl"
HEADER: Final = ("forwards/token", "time", "prefix reused")
UNKNOWN: Final = ("-", "-", "-")


@dataclass(slots=True)
class BatchCost:
    """What one batch of answers cost under one method.

    Attributes:
        method: Name of the arm.
        batch: Index of the batch in the run.
        tokens: Generated tokens of the longest answer.
        forwards: Forward passes of the language model for these answers; prefixes that several
            prompts share are left out.
        seconds: Wall-clock time.
        prompts: Prompts that the model was asked.
        reused: Prompts that went on behind a prefix that was computed for another one.
    """

    method: str
    batch: int
    tokens: int = 0
    forwards: int = 0
    seconds: float = 0.0
    prompts: int = 0
    reused: int = 0


@contextmanager
def measured(model: Any, cost: BatchCost) -> Iterator[None]:
    """Add forward passes and time of a `with` block to a cost.

    Args:
        model: The language model whose forward passes are counted.
        cost: Added to.
    """

    def count(*_: object) -> None:
        cost.forwards += 1

    hook = model.register_forward_pre_hook(count)
    start = time.perf_counter()
    try:
        yield
    finally:
        hook.remove()
        cost.seconds += time.perf_counter() - start


def append_cost(folder: Path, cost: BatchCost, place: Place) -> None:
    """Append a batch's cost to a run folder, to a file of this process."""
    path = folder / COSTS
    path = path if place.is_alone else part_of(path, place.index)
    with writing(path), path.open("ab") as file:
        file.write((json.dumps(asdict(cost)) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read_costs(folder: Path) -> list[BatchCost]:
    """Return the costs of a run folder; lines that were cut off in writing are left out."""
    costs = []
    for path in sorted(folder.glob("costs*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                costs.append(BatchCost(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return costs


def cost_cells(costs: Sequence[BatchCost]) -> dict[str, list[str]]:
    """Return the table cells of each method, as `HEADER` names them.

    Time is against the baseline's, batch by batch, and the median of the batches that both methods
    answered, so that a slow start weighs nothing.
    """
    by_method: dict[str, dict[int, BatchCost]] = {}
    for cost in costs:
        by_method.setdefault(cost.method, {})[cost.batch] = cost
    baseline = by_method.get("baseline", {})
    return {
        method: [_forwards(batches), _ratio(batches, baseline), _reused(batches)]
        for method, batches in by_method.items()
    }


def _forwards(batches: Mapping[int, BatchCost]) -> str:
    tokens = sum(cost.tokens for cost in batches.values())
    forwards = sum(cost.forwards for cost in batches.values())
    return f"{forwards / tokens:.2f}" if tokens else "-"


def _reused(batches: Mapping[int, BatchCost]) -> str:
    prompts = sum(cost.prompts for cost in batches.values())
    reused = sum(cost.reused for cost in batches.values())
    return f"{reused} of {prompts}" if prompts else "-"


def _ratio(batches: Mapping[int, BatchCost], baseline: Mapping[int, BatchCost]) -> str:
    ratios = [
        cost.seconds / baseline[batch].seconds
        for batch, cost in batches.items()
        if batch in baseline and baseline[batch].seconds > 0
    ]
    return f"{median(ratios):.2f}" if ratios else "-"
