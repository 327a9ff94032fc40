"""What requests cost: bounds on tokens before they are sent, and a budget that is never overdrawn.

A text of n bytes has at most n tokens, because no token of a byte-level tokenizer stands for less
than a byte. It has about a quarter of that in English, which is what the estimate for people says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import Final

from eval.tasks.judge.config import ImageTokens, JudgeConfig

BYTES_PER_TOKEN: Final = 4
TYPICAL_REPLY: Final = 300
# Roles, marks between messages, and a schema's own wording.
OVERHEAD: Final = 50
MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request: what it may come to at most, and what is likely."""

    prompt_most: int
    reply_most: int
    prompt_likely: int
    reply_likely: int


def image_tokens(rule: ImageTokens, width: int, height: int) -> int:
    """Return the tokens of a picture: base + per_patch for each patch that covers it."""
    patches = ceil(width / rule.patch) * ceil(height / rule.patch)
    return ceil(rule.base + rule.per_patch * patches)


# Of a model without a price, only to say how much is sent.
UNKNOWN_RULE: Final = ImageTokens(patch=32, per_patch=1.0)


def tokens_of(config: JudgeConfig, num_bytes: int, picture: tuple[int, int] | None) -> Tokens:
    """Return the tokens of a request.

    Args:
        config: The judge's settings.
        num_bytes: Bytes of the text and of the schema.
        picture: Width and height as sent, in pixels; None without a picture.
    """
    rule = config.price.image if config.price else UNKNOWN_RULE
    seen = 0 if picture is None else image_tokens(rule, *picture)
    return Tokens(
        prompt_most=num_bytes + seen + OVERHEAD,
        reply_most=config.max_output_tokens,
        prompt_likely=num_bytes // BYTES_PER_TOKEN + seen + OVERHEAD,
        reply_likely=min(TYPICAL_REPLY, config.max_output_tokens),
    )


def cost_of(config: JudgeConfig, prompt: int, reply: int) -> float | None:
    """Return the US dollars of some tokens; None if the model has no price."""
    price = config.price
    return None if price is None else (price.input * prompt + price.output * reply) / MILLION


class BoundReached(Exception):
    """A bound leaves no room for one more request, now and after what is under way."""


class Budget:
    """What may still be spent. Before a request its most is set aside, after it what it took.

    Attributes:
        spent: US dollars of all requests of the run, of earlier starts too.
        requests: Their number.
        overrun: How many times its most a request has cost, if that ever was more than once; what
            is set aside grows by it.
    """

    def __init__(
        self, *, max_cost: float | None, max_requests: int | None, spent: float, requests: int
    ) -> None:
        self.spent = spent
        self.requests = requests
        self.overrun = 1.0
        self._max_cost = max_cost
        self._max_requests = max_requests
        self._reserved = 0.0
        self._under_way = 0
        self._settled = asyncio.Condition()

    def obstacle(self, most: float) -> str | None:
        """Return which bound stands in the way of one more request; None if there is none."""
        if self._max_requests is not None and self.requests >= self._max_requests:
            return f"--max-requests {self._max_requests}"
        needed = self.spent + self._reserved + most * self.overrun
        # A millionth of a cent is rounding.
        if self._max_cost is not None and needed > self._max_cost + 1e-8:
            return f"--max-cost {self._max_cost:g}"
        return None

    async def reserve(self, most: float) -> float:
        """Set aside the most that a request can cost, once there is room, and return how much.

        Args:
            most: The most that it is thought to cost.
        Raises:
            BoundReached: Naming the bound.
        """
        async with self._settled:
            while (bound := self.obstacle(most)) is not None:
                if not self._under_way or bound.startswith("--max-requests"):
                    raise BoundReached(bound)
                await self._settled.wait()
            reserved = most * self.overrun
            self._reserved += reserved
            self._under_way += 1
            self.requests += 1
            return reserved

    async def settle(self, most: float, reserved: float, cost: float, *, measured: bool) -> None:
        """Replace what was set aside for a request by what it cost.

        Args:
            most: The most that it was thought to cost.
            reserved: What was set aside.
            cost: What it cost.
            measured: Whether the endpoint said what it took.
        """
        await self._release(reserved, cost)
        if measured and most > 0:
            self.overrun = max(self.overrun, cost / most)

    async def give_back(self, reserved: float) -> None:
        """Undo a reservation whose request was not sent."""
        self.requests -= 1
        await self._release(reserved, 0.0)

    async def _release(self, reserved: float, cost: float) -> None:
        async with self._settled:
            self._reserved -= reserved
            self._under_way -= 1
            self.spent += cost
            self._settled.notify_all()
