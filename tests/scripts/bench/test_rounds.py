"""Rounds: who runs when, how many fit into the time, and what becomes of arms that fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from scripts.bench.rounds import Arm, Limits, Measurement, NoTimeError, run_rounds
from scripts.bench.rows import Row, table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what lets time pass, which stands still otherwise."""
    now = [100.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return wait


def test_rounds_interleave_the_arms_and_drop_the_warm_up() -> None:
    calls: list[str] = []

    def arm(name: str, value: float) -> dict[str, float]:
        calls.append(name)
        return {"time, ms": value * len(calls)}

    arms = {"a": lambda: arm("a", 1.0), "b": lambda: arm("b", 10.0)}
    rows = run_rounds(Measurement("both", arms), 2)

    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [row.values for row in rows] == [(4.0, 5.0), (30.0, 60.0)]
    assert rows[1].ratios == (30 / 4, 60 / 5)


def test_every_round_that_counts_is_handed_on_at_once() -> None:
    seen: list[int] = []

    run_rounds(
        Measurement("one", {"a": lambda: {"ms": 1.0}}),
        3,
        finished=lambda rows: seen.append(len(rows[0].values)),
    )

    assert seen == [1, 2, 3]


def test_ratios_are_left_out_where_they_say_nothing() -> None:
    arms: dict[str, Arm] = {"a": lambda: {"ms": 1.0, "MiB": 2.0}, "b": lambda: {"ms": 3.0}}

    rows = run_rounds(Measurement("both", arms, most=1, absolute=("MiB",)), 5)

    assert rows == [
        Row("both", "ms", "a", (1.0,), (1.0,)),
        Row("both", "ms", "b", (3.0,), (3.0,)),
        Row("both", "MiB", "a", (2.0,)),
    ]


@pytest.mark.parametrize(
    ("seconds", "most", "rounds"), [(60, 10, 10), (60, 99, 59), (3.5, 10, 2), (1, 10, 1)]
)
def test_as_many_rounds_as_fit(
    clock: Callable[[float], None], seconds: float, most: int, rounds: int
) -> None:
    """Of a second each, the first of which does not count; one counts while there is time at all.

    The last limit is a section's share, and others leave it the time.
    """

    def arm() -> dict[str, float]:
        clock(1.0)
        return {"ms": 1.0}

    rows = run_rounds(Measurement("one", {"a": arm}), most, Limits(100 + seconds, 200))

    assert len(rows[0].values) == rounds


def test_a_first_round_that_was_slow_does_not_decide(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU it compiles kernels."""
    took = iter([30.0] + [1.0] * 99)

    def arm() -> dict[str, float]:
        clock(next(took))
        return {"ms": 1.0}

    rows = run_rounds(Measurement("one", {"a": arm}), 50, Limits(161, 161))

    assert len(rows[0].values) == 31
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "one: round 1 of 2 took 30 s, about 30 s left"
    assert said[1] == "one: round 2 of 32 took 1.0 s, about 30 s left"
    assert said[-1] == "one: 31 of 50 rounds fit into the time"


@pytest.mark.parametrize(("arms", "seconds", "run"), [("ab", 0.5, 1), ("a", 1.5, 1), ("a", 2, 2)])
def test_what_does_not_fit_once_is_no_row(
    clock: Callable[[float], None], arms: str, seconds: float, run: int
) -> None:
    """Neither where the time is over between two arms, nor where the next round would end later."""
    calls: list[int] = []

    def arm() -> dict[str, float]:
        calls.append(1)
        clock(1.0)
        return {"ms": 1.0}

    limits = Limits(100 + seconds, 100 + seconds)
    with pytest.raises(NoTimeError) if run == 1 else nullcontext():
        run_rounds(Measurement("one", dict.fromkeys(arms, arm)), 5, limits)

    assert len(calls) == run


def test_parts_of_the_time(clock: Callable[[float], None]) -> None:
    limits = Limits(160, 300)
    clock(20)

    assert limits.part(0.25) == Limits(130, 300)


def test_an_arm_that_fails_is_a_row_and_the_others_go_on() -> None:
    def fails() -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16 GiB")

    def breaks() -> dict[str, float]:
        raise RuntimeError("no | such\nkernel")

    arms = {"a": lambda: {"ms": 2.0}, "b": fails, "c": breaks, "d": lambda: {"ms": 3.0}}
    rows = run_rounds(Measurement("four", arms, left_out={"e": "minutes"}), 2)

    assert [(row.arm, row.values) for row in rows[:2]] == [("a", (2.0, 2.0)), ("d", (3.0, 3.0))]
    assert table(rows).splitlines()[4:] == [
        "| four |  | b | failed: out of memory |  |",
        "| four |  | c | failed: RuntimeError: no / such kernel |  |",
        "| four |  | e | left out: minutes |  |",
    ]


def test_where_the_first_arm_fails_the_others_have_no_ratios() -> None:
    def fails() -> dict[str, float]:
        raise MemoryError

    rows = run_rounds(Measurement("two", {"a": fails, "b": lambda: {"ms": 3.0}}), 2)

    assert rows == [
        Row("two", "ms", "b", (3.0, 3.0)),
        Row("two", "", "a", note="failed: out of memory"),
    ]


@pytest.mark.parametrize(
    ("values", "printed"),
    [
        ((0.0483, 0.0480, 0.0512), "0.0483 (0.0480..0.0512)"),
        ((13872.04, 13872.0, 13873.0), "13872 (13872..13873)"),
        ((8.801, 8.6, 8.9), "8.80 (8.60..8.90)"),
        ((0.0, 0.0, 0.0), "0 (0..0)"),
    ],
)
def test_numbers_have_three_significant_digits(values: tuple[float, ...], printed: str) -> None:
    row = Row("one", "ms", "a", values, (1.0049, 0.9312, 1.0101))

    assert f"| a | {printed} | 1.005 (0.931..1.010) |" in table([row])


def test_what_was_measured_in_another_way_says_so() -> None:
    arms: dict[str, Arm] = {"a": lambda: {"ms": 1.0}}

    rows = run_rounds(Measurement("one", arms, notes={"a": "from 1 of 8 captions"}), 1)

    assert "| one | ms | a (from 1 of 8 captions) | 1.00 (1.00..1.00) |" in table(rows)
