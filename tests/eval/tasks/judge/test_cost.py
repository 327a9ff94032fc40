"""Bounds on tokens, and a budget that many workers can't overdraw."""

from __future__ import annotations

import asyncio
import random

import pytest

from eval.tasks.judge.config import ImageTokens, JudgeConfig, Price
from eval.tasks.judge.cost import BoundReached, Budget, cost_of, image_tokens, tokens_of


def test_pictures_are_counted_in_patches() -> None:
    # 1024 x 1024 is 32 x 32 patches; 1800 x 2400 in squares of 512 is 4 x 5 of them.
    assert image_tokens(ImageTokens(32, 1.0), 1024, 1024) == 1024
    assert image_tokens(ImageTokens(512, 170, 85), 1800, 2400) == 85 + 20 * 170
    assert image_tokens(ImageTokens(32, 1.62), 33, 1) == 4  # two patches, 3.24 tokens, rounded up


def test_a_request_costs_its_tokens_times_the_price() -> None:
    config = JudgeConfig("m", prices={"m": Price(2.0, 10.0, ImageTokens(32, 1.0))},
                         max_output_tokens=100)  # fmt: skip
    tokens = tokens_of(config, 400, (64, 32))

    assert (tokens.prompt_most, tokens.reply_most) == (400 + 2 + 50, 100)
    assert tokens.prompt_likely == 100 + 2 + 50
    assert cost_of(config, 1_000_000, 500_000) == 7.0
    assert cost_of(JudgeConfig("unpriced"), 5, 5) == 0.0


def budget(
    max_cost: float | None = None,
    max_requests: int | None = None,
    spent: float = 0.0,
    requests: int = 0,
) -> Budget:
    prices = {"m": Price(2.0, 10.0, ImageTokens(32, 1.0))}
    config = JudgeConfig("m", max_cost=max_cost, max_requests=max_requests, prices=prices)
    return Budget(config, spent, requests)


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_of_workers_overdraws_it(seed: int) -> None:
    drawn = random.Random(seed)
    kept = budget(max_cost=1.0)
    highest = 0.0
    refused = 0

    async def worker() -> None:
        nonlocal highest, refused
        for _ in range(20):
            most = drawn.uniform(0.01, 0.2)
            try:
                reserved = await kept.reserve(most)
            except BoundReached:
                refused += 1
                return
            await asyncio.sleep(drawn.uniform(0, 0.001))
            await kept.settle(most, reserved, drawn.uniform(0, most), measured=True)
            highest = max(highest, kept.spent)

    async def work() -> None:
        await asyncio.gather(*(worker() for _ in range(8)))

    asyncio.run(work())

    assert highest <= 1.0
    assert refused == 8
    assert kept.spent > 0.5  # It is used, too: refused only where the next may not fit.


def test_a_request_waits_for_what_is_under_way_before_it_is_refused() -> None:
    async def work() -> tuple[float, float]:
        kept = budget(max_cost=1.0)
        first = await kept.reserve(0.8)
        second = asyncio.ensure_future(kept.reserve(0.8))
        await asyncio.sleep(0.01)
        assert not second.done()
        await kept.settle(0.8, first, 0.1, measured=True)
        return await second, kept.spent

    assert asyncio.run(work()) == (0.8, 0.1)


def test_what_cost_more_than_thought_raises_what_is_set_aside() -> None:
    async def work() -> float:
        kept = budget(max_cost=10.0)
        reserved = await kept.reserve(1.0)
        await kept.settle(1.0, reserved, 3.0, measured=True)
        return await kept.reserve(1.0)

    assert asyncio.run(work()) == 3.0


def test_requests_of_earlier_starts_count() -> None:
    assert budget(max_requests=3, requests=2).reached_bound(0.0) is None
    assert budget(max_requests=3, requests=3).reached_bound(0.0) == "--max-requests 3"
    assert budget(max_cost=1.0, spent=0.9).reached_bound(0.2) == "--max-cost 1"


def test_a_reservation_that_was_not_used_is_given_back() -> None:
    async def work() -> Budget:
        kept = budget(max_cost=1.0, max_requests=1)
        await kept.give_back(await kept.reserve(1.0))
        return kept

    kept = asyncio.run(work())
    assert kept.reached_bound(1.0) is None
    assert kept.spent == 0.0
