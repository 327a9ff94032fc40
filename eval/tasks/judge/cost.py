"""The cost of requests: upper bounds on tokens before sending, and a budget that is never exceeded.

A text of n bytes has at most n tokens, because each token of a byte-level tokenizer has at least
one byte. English text has about n / 4 tokens; the printed estimate uses this number.
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
# Tokens for roles, separators between messages, and the text around a schema.
OVERHEAD: Final = 50
MILLION: Final = 1_000_000
# For a model without a price, only to estimate the number of tokens.
UNKNOWN_RULE: Final = ImageTokens(patch=32, per_patch=1.0)


def image_tokens(rule: ImageTokens, width: int, height: int) -> int:
    """Return the tokens of a picture: base + per_patch for each patch that covers it."""
    patches = ceil(width / rule.patch) * ceil(height / rule.patch)
    return ceil(rule.base + rule.per_patch * patches)


def tokens_of(config: JudgeConfig, num_bytes: int, picture: tuple[int, int] | None) -> Tokens:
    """Return the tokens of a request.

    Args:
        config: The judge's settings.
        num_bytes: Size of text and schema.
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
    """Return the cost of some tokens in US dollars; 0 if the model has no price."""
    price = config.price
    return (price.input * prompt + price.output * reply) / MILLION if price else 0.0


def estimate(config: JudgeConfig, requests: Sequence[Tokens]) -> str:
    """Return the estimated and the highest possible cost of some requests, as printed text."""
    prompt_most = sum(one.prompt_most for one in requests)
    reply_most = sum(one.reply_most for one in requests)
    prompt = sum(one.prompt_likely for one in requests)
    reply = sum(one.reply_likely for one in requests)
    cost = (
        f"cost: about ${cost_of(config, prompt, reply):.2f}, at most "
        f"${cost_of(config, prompt_most, reply_most):.2f}, by the prices in configs/judge.yaml"
        if config.price
        else f"cost: unknown, {config.judge_model} has no price in configs/judge.yaml"
    )
    return (
        f"to send: {len(requests)} requests to {config.judge_model} at {endpoint(config)}\n"
        f"tokens: about {prompt:,} in prompts + {reply:,} in replies ({BYTES_PER_TOKEN} bytes per "
        f"token, {TYPICAL_REPLY} tokens per reply), at most {prompt_most:,} + {reply_most:,}\n"
        f"{cost}"
    )


class BoundReached(Exception):
    """A bound leaves no room for another request, even after all pending requests."""


class Budget:
    """What may still be spent: reserves a request's highest cost, then books the actual one."""

    def __init__(self, config: JudgeConfig, spent: float = 0.0, requests: int = 0) -> None:
        """Start with the settings' bounds, and the cost of the run's requests so far."""
        self.spent = spent
        self.requests = requests
        # Largest ratio of the actual cost of a request to its computed upper bound; at least 1.
        self._overrun = 1.0
        self._max_cost = config.max_cost
        self._max_requests = config.max_requests
        self._reserved = 0.0
        self._pending = 0
        self._settled = asyncio.Condition()

    def check(self, most: float) -> None:
        """Check that there is room for a first request with this highest possible cost.

        Raises:
            EvaluationError: If there is not, with the cost and what was spent.
        """
        bound = self.reached_bound(most)
        if bound is not None:
            cost = f", which may cost ${most:.4f}" if most else ""
            raise EvaluationError(
                f"{bound} leaves no room for one request{cost}; this run has sent {self.requests} "
                f"requests for ${self.spent:.4f} so far: raise the bound"
            )

    def reached_bound(self, most: float) -> str | None:
        """Return the bound that forbids another request; None if none does."""
        if self._max_requests is not None and self.requests >= self._max_requests:
            return f"--max-requests {self._max_requests}"
        needed = self.spent + self._reserved + most * self._overrun
        # A millionth of a cent is attributed to rounding.
        if self._max_cost is not None and needed > self._max_cost + 1e-8:
            return f"--max-cost {self._max_cost:g}"
        return None

    async def reserve(self, most: float) -> float:
        """Reserve the highest possible cost of a request, once there is room, and return it.

        Raises:
            BoundReached: If there will be no room, naming the bound.
        """
        async with self._settled:
            while (bound := self.reached_bound(most)) is not None:
                if not self._pending or bound.startswith("--max-requests"):
                    raise BoundReached(bound)
                await self._settled.wait()
            reserved = most * self._overrun
            self._reserved += reserved
            self._pending += 1
            self.requests += 1
            return reserved

    async def settle(self, most: float, reserved: float, cost: float, *, measured: bool) -> None:
        """Replace the reservation of a request by its cost.

        If the token counts of the endpoint show a cost above the computed upper bound, later
        reservations grow by the same factor.
        """
        await self._release(reserved, cost)
        if measured and most > 0:
            self._overrun = max(self._overrun, cost / most)

    async def give_back(self, reserved: float) -> None:
        """Cancel the reservation of a request that was not sent."""
        self.requests -= 1
        await self._release(reserved, 0.0)

    async def _release(self, reserved: float, cost: float) -> None:
        async with self._settled:
            self._reserved -= reserved
            self._pending -= 1
            self.spent += cost
            self._settled.notify_all()
