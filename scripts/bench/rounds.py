"""Rounds of measurements: every arm in every round, as many rounds as asked for or as time allows.

How long a measurement takes on a new machine is unknown. So the first round is timed, and the
expected time of the others is printed before they start.
"""

from __future__ import annotations

import gc
import itertools
import math
import sys
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from scripts.bench.rows import Row

LONGEST_REASON: Final = 160
Arm = Callable[[], dict[str, float]]
"""Runs once, and returns its quantities by name and unit. Arms need not have the same ones."""


class NoTimeError(Exception):
    """Not even one round fits into the time that is left."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is compared in one go.

    Attributes:
        measured: What the rows are about.
        arms: What runs one round, by name; the others are compared with the first.
        most: Rounds at most that count, where the command asks for more; None for no limit.
        warm_up: Rounds before them that do not count.
        absolute: Quantities whose ratios are meaningless.
        notes: How an arm was measured in another way than the others, by its name.
        left_out: Why an arm is not measured, by its name.
        share: Part of the time its section has left, where time is limited.
        lines: Returns sentences about the rows.
    """

    measured: str
    arms: Mapping[str, Arm]
    most: int | None = None
    warm_up: int = 1
    absolute: Collection[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    lines: Callable[[Sequence[Row]], list[str]] = lambda _: []


Measurements = Generator[Measurement, None, None]
"""What a section measures, one after the other."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop, in seconds of `time.monotonic`.

    Attributes:
        until: No round starts that would end later; the first that counts may.
        end: That one neither.
    """

    until: float = math.inf
    end: float = math.inf

    def part(self, share: float) -> Limits:
        """Return the limits of something that has a part of the time until `until`."""
        now = time.monotonic()
        return Limits(now + (self.until - now) * share, self.end)


def run_rounds(
    this: Measurement,
    repeats: int,
    limits: Limits | None = None,
    finished: Callable[[list[Row]], None] = lambda _: None,
) -> list[Row]:
    """Run every arm in every round, in alternating order.

    An arm that fails is left out from then on, with a row that says why.

    Args:
        this: What is measured.
        repeats: Number of rounds that count.
        limits: When to stop earlier.
        finished: Called with all rows so far after every round that counts.
    Raises:
        NoTimeError: If no round that counts fits into the time.
    """
    limits = limits or Limits()
    todo = repeats if this.most is None else min(repeats, this.most)
    rounds: list[dict[str, dict[str, float]]] = []
    failed: dict[str, str] = {}
    for index in itertools.count():
        start = time.monotonic()
        found = _run_round(this, index, failed, limits)
        seconds = time.monotonic() - start
        if index >= this.warm_up and found:
            rounds.append(found)
            finished(rows_of(this, rounds, failed))
        left = int(min(todo - len(rounds), _rounds_left(limits, seconds, counted=bool(rounds))))
        if left <= 0 or not found:
            break
        done = index + 1
        of = f"round {done} of {done + left} took {_duration(seconds)}"
        _print_progress(f"{this.measured}: {of}, about {_duration(left * seconds)} left")
    if len(rounds) < todo and not math.isinf(limits.end):
        _print_progress(f"{this.measured}: {len(rounds)} of {todo} rounds fit into the time")
    return rows_of(this, rounds, failed)


def rows_of(
    this: Measurement,
    rounds: Sequence[Mapping[str, Mapping[str, float]]],
    failed: Mapping[str, str],
) -> list[Row]:
    """Return the rows of some rounds: by quantity, then by arm; arms without numbers come last."""
    arms = [arm for arm in this.arms if arm not in failed]
    names = dict.fromkeys(name for found in rounds for arm in arms for name in found[arm])
    rows = []
    for quantity in names:
        of = {arm: [found[arm][quantity] for found in rounds if quantity in found[arm]]
              for arm in arms}  # fmt: skip
        base = of.get(next(iter(this.arms)), [])
        for arm, values in of.items():
            ratios: tuple[float, ...] = ()
            if len(values) == len(base) and quantity not in this.absolute:
                ratios = tuple(v / b for v, b in zip(values, base, strict=True) if b > 0)
            if values:
                note = this.notes.get(arm, "")
                rows.append(Row(this.measured, quantity, arm, tuple(values), ratios, note))
    rows += [Row(this.measured, "", arm, note=f"failed: {why}") for arm, why in failed.items()]
    rows += [Row(this.measured, "", arm, note=f"left out: {w}") for arm, w in this.left_out.items()]
    return rows


def reason_of(error: Exception) -> str:
    """Return in a few words why a measurement failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "out of memory"
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."


def _run_round(
    this: Measurement, index: int, failed: dict[str, str], limits: Limits
) -> dict[str, dict[str, float]]:
    """Return the quantities of every arm that works; note the others in `failed`."""
    found: dict[str, dict[str, float]] = {}
    for arm in list(this.arms)[:: -1 if index % 2 else 1]:
        if arm in failed:
            continue
        if index <= this.warm_up and time.monotonic() > limits.end:
            raise NoTimeError("the time was over before a round that counts was")
        try:
            found[arm] = this.arms[arm]()
        except Exception as error:  # whatever it is, the other arms can be measured
            failed[arm] = reason_of(error)
            _print_progress(f"{this.measured}: {arm} failed: {failed[arm]}")
        if arm in failed:  # here, where the error no longer holds what did not fit
            free_memory()
    return found


def _rounds_left(limits: Limits, seconds: float, *, counted: bool) -> float:
    """Return how many more rounds fit, as long as the last one each."""
    now = time.monotonic()
    if not counted and now + seconds > limits.end:
        raise NoTimeError(f"a round takes {_duration(seconds)}")
    fit = math.inf if math.isinf(limits.until) else (limits.until - now) // max(seconds, 1e-9)
    return fit if counted else max(fit, 1)


def free_memory() -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _print_progress(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
