"""What requests cost: bounds on tokens before they are sent, and a budget that is never overdrawn.

A text of n bytes has at most n tokens, because no token of a byte-level tokenizer stands for less
than a byte. It has about a quarter of that in English, which is what the estimate for people says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil
from typing import Final

from eval.errors import EvaluationError
from eval.tasks.judge.config import ImageTokens, JudgeConfig, Tokens, endpoint

BYTES_PER_TOKEN: Final = 4
TYPICAL_REPLY: Final = 300
# Roles, marks between messages, and a schema's own wording.
OVERHEAD: Final = 50
MILLION: Final = 1_000_000
# Of a model without a price, only to say how much is sent.
UNKNOWN_RULE: Final = ImageTokens(patch=32, per_patch=1.0)


def image_tokens(rule: ImageTokens, width: int, height: int) -> int:
    """Return the tokens of a picture: base + per_patch for each patch that covers it."""
    patches = ceil(width / rule.patch) * ceil(height / rule.patch)
    return ceil(rule.base + rule.per_patch * patches)


def tokens_of(config: JudgeConfig, num_bytes: int, picture: tuple[int, int] | None) -> Tokens:
    """Return the tokens of a request.

    Args:
        config: The judge's settings.
        num_bytes: Of the text and of the schema.
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


def cost_of(config: JudgeConfig, prompt: int, reply: int) -> float:
    """Return the US dollars of some tokens; 0 if the model has no price."""
    price = config.price
    return (price.input * prompt + price.output * reply) / MILLION if price else 0.0


def estimate(config: JudgeConfig, requests: Sequence[Tokens]) -> str:
    """Return what sending some requests may come to, for people."""
    prompt_most = sum(one.prompt_most for one in requests)
    reply_most = sum(one.reply_most for one in requests)
    prompt = sum(one.prompt_likely for one in requests)
    reply = sum(one.reply_likely for one in requests)
    cost = (
        f"cost: about ${cost_of(config, prompt, reply):.2f}, at most "
        f"${cost_of(config, prompt_most, reply_most):.2f}, by the prices in configs/judge.yaml"
        if config.price
        else f"cost: not known, {config.judge_model} has no price in configs/judge.yaml"
    )
    return (
        f"to send: {len(requests)} requests to {config.judge_model} at {endpoint(config)}\n"
        f"tokens: about {prompt:,} + {reply:,} in replies ({BYTES_PER_TOKEN} bytes a token, "
        f"replies of {TYPICAL_REPLY}), at most {prompt_most:,} + {reply_most:,}\n{cost}"
    )


class BoundReached(Exception):
    """A bound leaves no room for one more request, now and after what is under way."""


class Budget:
    """What may still be spent. Before a request its most is set aside, after it what it took."""

    def __init__(self, config: JudgeConfig, spent: float = 0.0, requests: int = 0) -> None:
        """Start with the settings' bounds, and what the run's requests have cost so far."""
        self.spent = spent
        self.requests = requests
        # How many times its most a request has cost, if that was ever more than once.
        self._overrun = 1.0
        self._max_cost = config.max_cost
        self._max_requests = config.max_requests
        self._reserved = 0.0
        self._under_way = 0
        self._settled = asyncio.Condition()

    def check(self, most: float) -> None:
        """Check that there is room for a first request that costs so much at most.

        Raises:
            EvaluationError: Saying what it would cost at most, and what was spent.
        """
        bound = self.obstacle(most)
        if bound is not None:
            cost = f", which may cost ${most:.4f}" if most else ""
            raise EvaluationError(
                f"{bound} leaves no room for one request{cost}; this run has sent {self.requests} "
                f"requests for ${self.spent:.4f} so far: raise the bound"
            )

    def obstacle(self, most: float) -> str | None:
        """Return which bound stands in the way of one more request; None if there is none."""
        if self._max_requests is not None and self.requests >= self._max_requests:
            return f"--max-requests {self._max_requests}"
        needed = self.spent + self._reserved + most * self._overrun
        # A millionth of a cent is rounding.
        if self._max_cost is not None and needed > self._max_cost + 1e-8:
            return f"--max-cost {self._max_cost:g}"
        return None

    async def reserve(self, most: float) -> float:
        """Set aside the most that a request may cost, once there is room, and return how much.

        Raises:
            BoundReached: Naming the bound.
        """
        async with self._settled:
            while (bound := self.obstacle(most)) is not None:
                if not self._under_way or bound.startswith("--max-requests"):
                    raise BoundReached(bound)
                await self._settled.wait()
            reserved = most * self._overrun
            self._reserved += reserved
            self._under_way += 1
            self.requests += 1
            return reserved

    async def settle(self, most: float, reserved: float, cost: float, *, measured: bool) -> None:
        """Replace what was set aside for a request by what it cost.

        If the endpoint itself has measured that it took more than was thought possible, so much
        more is set aside for others.
        """
        await self._release(reserved, cost)
        if measured and most > 0:
            self._overrun = max(self._overrun, cost / most)

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
