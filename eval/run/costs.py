"""The cost of each arm: forward passes per generated token, and time relative to the baseline.

Costs are measured for each batch during a run and stored in `costs.jsonl` of the arm's folder,
separate from the answers: answers are reproducible, times are not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(slots=True)
class BatchCost:
    """The cost of one batch of answers under one arm.

    Attributes:
        batch: Identifies the batch by its first question and its size.
        device: The device that it ran on.
        tokens: Generated tokens of the longest answer.
        forwards: Forward passes of the language model for these answers, without those that compute
            cached prefixes.
        seconds: Wall-clock time.
        prompts: Number of prompts.
        reused: Prompts that continued after a cached prefix computed for another prompt.
        session: The process that asked; only times of the same process are comparable. "" in older
            records.
    """

    batch: str
    device: str = ""
    tokens: int = 0
    forwards: int = 0
    seconds: float = 0.0
    prompts: int = 0
    reused: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True)
class ArmCost:
    """The cost of an arm over a run.

    Attributes:
        forwards_per_token: Forward passes per generated token; None if nothing was measured.
        time: Ratio to the baseline's time: the median over the batches that both answered in one
            session on one device, so that a slow start has no effect; None without such batches.
        prompts: Number of prompts.
        reused: Number of these that continued after a cached prefix.
    """

    forwards_per_token: float | None
    time: float | None
    prompts: int
    reused: int


@contextmanager
def measure(model: Any, cost: BatchCost) -> Iterator[None]:
    """Add forward passes and time of a `with` block to a cost.

    Args:
        model: The language model whose forward passes are counted, even if its `generate` runs an
            inner model.
        cost: The cost to add to.
    """

    def count(*_: object) -> None:
        cost.forwards += 1

    hook = first_attention(model).register_forward_pre_hook(count)
    start = time.perf_counter()
    try:
        yield
    finally:
        hook.remove()
        cost.seconds += time.perf_counter() - start


def first_attention(model: Any) -> Any:
    """Return the attention module of the first layer; the model itself if none is known."""
    # Imported late: this loads torch, which commands that read recorded costs do not need.
    from eah.errors import UnsupportedModelError
    from eah.find import attention_modules

    try:
        modules = attention_modules(model)
    except UnsupportedModelError:
        return model
    return modules[min(modules)]


def arm_costs(costs: Mapping[str, Sequence[BatchCost]], baseline: str) -> dict[str, ArmCost]:
    """Return the cost of each arm, by name.

    Args:
        costs: Batches by arm.
        baseline: Name of the arm whose times are the reference.
    """
    reference = {_comparison_key(c): c.seconds for c in costs.get(baseline, ()) if c.seconds > 0}
    found = {}
    for name, batches in costs.items():
        tokens = sum(cost.tokens for cost in batches)
        keyed = [(_comparison_key(cost), cost.seconds) for cost in batches]
        ratios = [seconds / reference[key] for key, seconds in keyed if key in reference]
        found[name] = ArmCost(
            sum(cost.forwards for cost in batches) / tokens if tokens else None,
            median(ratios) if ratios else None,
            sum(cost.prompts for cost in batches),
            sum(cost.reused for cost in batches),
        )
    return found


def _comparison_key(cost: BatchCost) -> tuple[str, str, str]:
    """Return the key that two batches must share for their times to be comparable."""
    return cost.batch, cost.device, cost.session
