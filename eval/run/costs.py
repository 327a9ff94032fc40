"""What each arm costs: forward passes per generated token, and time against the baseline.

Measured for each batch during a run and stored in `costs.jsonl` of the arm's folder, separate from
the answers: answers are reproducible, times are not.
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
    """What one batch of answers cost under one arm.

    Attributes:
        batch: Names the batch: its first question, and how many it has.
        device: Where it ran.
        tokens: Generated tokens of the longest answer.
        forwards: Forward passes of the language model for these answers; prefixes that several
            prompts share are left out.
        seconds: Wall-clock time.
        prompts: Prompts that the model was asked.
        reused: Prompts that continued a cached prefix computed for another prompt.
        session: The process that asked, whose times alone are comparable; "" in older records.
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
    """What an arm cost over a run.

    Attributes:
        forwards_per_token: Forward passes per generated token; None if nothing was measured.
        time: Times the baseline's, the median of the batches that both answered in one session on
            one device, so that a slow start weighs nothing; None if there is none.
        prompts: Prompts that the model was asked.
        reused: Of these, prompts that continued a cached prefix.
    """

    forwards_per_token: float | None
    time: float | None
    prompts: int
    reused: int


@contextmanager
def measure(model: Any, cost: BatchCost) -> Iterator[None]:
    """Add forward passes and time of a `with` block to a cost.

    Args:
        model: The language model whose forward passes are counted, also where its `generate` runs
            an inner model.
        cost: Added to.
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
    """Return the attention module of the first layer; the model itself where none is known."""
    # Loads torch, which commands that read recorded costs do not need.
    from eah.errors import UnsupportedModelError
    from eah.find import attention_modules

    try:
        modules = attention_modules(model)
    except UnsupportedModelError:
        return model
    return modules[min(modules)]


def arm_costs(costs: Mapping[str, Sequence[BatchCost]], baseline: str) -> dict[str, ArmCost]:
    """Return what each arm cost, by name.

    Args:
        costs: Batches by arm.
        baseline: Name of the arm that times are compared with.
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
    """Return the key that two times must share to be comparable."""
    return cost.batch, cost.device, cost.session
