"""Ask the judge many things at a time: bounded in requests, money and patience, and interruptible.

The first request goes alone. Where nothing can work (no such model, a wrong key, nobody there), one
request shows it; and where a request costs more than was thought, what is set aside for each of the
others grows before they are sent.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

from tqdm import tqdm

from eval.tasks.judge.client import Judge
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.cost import BoundReached, Budget, cost_of
from eval.tasks.judge.reply import Failure, Kind, Reply
from eval.tasks.judge.requests import Request, body_of
from eval.tasks.judge.store import Judgements

# Judgements that fail one after another, before the run stops: the fault is not theirs then.
MOST_IN_A_ROW: Final = 3
JITTER: Final = 0.25


@dataclass(slots=True)
class Ending:
    """How asking ended.

    Attributes:
        bound: Which bound stopped it.
        hopeless: Why nothing more was asked.
        given_up: Why a request has no reply yet, by key.
        interrupted: Whether Ctrl-C stopped it.
    """

    bound: str | None = None
    hopeless: str | None = None
    given_up: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


async def ask_all(
    requests: Sequence[Request],
    judge: Judge,
    judgements: Judgements,
    budget: Budget,
    config: JudgeConfig,
) -> Ending:
    """Send requests and record their replies, until all have one or something stops it.

    Args:
        requests: What to ask, each once.
        judge: The endpoint.
        judgements: Where requests and replies are recorded.
        budget: What may be spent.
        config: Workers, attempts and waits.
    Returns:
        How it ended. Whatever was answered is recorded, however that was.
    """
    with tqdm(total=len(requests), unit="judgement", desc=config.judge_model) as progress:
        return await _Asking(requests, judge, judgements, budget, config, progress).run()


class _Asking:
    """The state that the workers of one call share."""

    def __init__(
        self,
        requests: Sequence[Request],
        judge: Judge,
        judgements: Judgements,
        budget: Budget,
        config: JudgeConfig,
        progress: tqdm[NoReturn],
    ) -> None:
        self._waiting = deque(requests)
        self._judge = judge
        self._judgements = judgements
        self._budget = budget
        self._config = config
        self._progress = progress
        self._ending = Ending()
        self._stop = asyncio.Event()
        self._answered = False
        self._in_a_row = 0
        self._quiet_until = 0.0  # The event loop's time; set by a rate limit.

    async def run(self) -> Ending:
        """Ask everything and return how it ended."""
        work = asyncio.ensure_future(self._work())
        with self._interruptible(work):
            with suppress(asyncio.CancelledError):
                await work
            if work.cancelled():
                self._ending.interrupted = True
        return self._ending

    async def _work(self) -> None:
        while self._waiting and not self._answered and not self._stop.is_set():
            await self._one(self._waiting.popleft())
        workers = [self._worker() for _ in range(self._config.judge_workers)]
        # Not cancelled where one of them fails: the others wait for replies that are paid for.
        for result in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _worker(self) -> None:
        failed = True
        try:
            while self._waiting and not self._stop.is_set():
                await self._one(self._waiting.popleft())
            failed = False
        finally:
            if failed:
                self._stop.set()

    async def _one(self, request: Request) -> None:
        """Ask one thing until it is answered, or given up."""
        failure: Failure | None = None
        for attempt in range(self._config.max_attempts):
            if not await self._may_send(attempt, failure):
                break
            reply = await self._send(request)
            if reply is None:
                return
            if isinstance(reply, Reply):
                self._answered, self._in_a_row = True, 0
                self._progress.update()
                return
            failure = reply
            if failure.kind is Kind.HOPELESS or (
                failure.kind is Kind.UNREACHED and not self._answered
            ):
                self._halt(hopeless=failure.reason)
                return
            if failure.kind is Kind.REJECTED:
                self._progress.update()
                break
        self._leave(request, failure)

    async def _may_send(self, attempt: int, failure: Failure | None) -> bool:
        """Wait as long as is due before an attempt; False if there is to be none."""
        now = asyncio.get_running_loop().time
        if failure is not None:
            told = failure.wait_s or 0.0
            if told > self._config.longest_wait_s:
                return False
            if told and failure.kind is Kind.BUSY:
                self._quiet_until = max(self._quiet_until, now() + told)
            backoff = self._config.first_wait_s * 2 ** (attempt - 1)
            backoff = min(backoff * (1 + random.uniform(0, JITTER)), self._config.longest_wait_s)
            wait = told or backoff
            await self._sleep(wait)
        while self._quiet_until > now() and not self._stop.is_set():
            await self._sleep(self._quiet_until - now())
        return not self._stop.is_set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _send(self, request: Request) -> Reply | Failure | None:
        """Send one request within the budget and record both; None where a bound forbids it."""
        try:
            reserved = await self._budget.reserve(request.most_usd)
        except BoundReached as error:
            self._halt(bound=str(error))
            return None
        if self._stop.is_set():
            await self._budget.give_back(reserved)
            return None
        body = body_of(request, self._config)
        number = self._judgements.sent(request, reserved)
        reply = await self._judge.ask(body)
        measured = False
        if isinstance(reply, Failure):
            cost = 0.0 if reply.kind.free else reserved
            self._judgements.failed(number, reply, cost)
        else:
            measured = reply.prompt_tokens is not None and reply.reply_tokens is not None
            cost = reserved
            if measured:
                known = cost_of(self._config, reply.prompt_tokens or 0, reply.reply_tokens or 0)
                cost = known or 0.0
            self._judgements.received(number, reply, cost)
        await self._budget.settle(request.most_usd, reserved, cost, measured=measured)
        return reply

    def _leave(self, request: Request, failure: Failure | None) -> None:
        """Note that a request stays without a reply, and stop if too many do."""
        if failure is None:
            return
        if failure.kind is not Kind.REJECTED:
            self._ending.given_up[request.key] = failure.reason
        elif self._answered:
            return  # Of this picture or text; others were taken.
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW and not self._stop.is_set():
            self._halt(hopeless=f"{self._in_a_row} judgements in a row failed, the last of them "
                       f"with: {failure.reason}")  # fmt: skip

    def _halt(self, *, bound: str | None = None, hopeless: str | None = None) -> None:
        """Send nothing more; what is under way is waited for."""
        self._ending.bound = self._ending.bound or bound
        self._ending.hopeless = self._ending.hopeless or hopeless
        self._stop.set()

    @contextmanager
    def _interruptible(self, work: asyncio.Future[None]) -> Iterator[None]:
        """Take the first Ctrl-C for "send nothing more", and the second for "now"."""

        def interrupted() -> None:
            if self._ending.interrupted:
                work.cancel()
                return
            self._ending.interrupted = True
            self._stop.set()
            tqdm.write("waiting for replies that are paid for; Ctrl-C again drops them",
                       file=sys.stderr)  # fmt: skip

        loop = asyncio.get_running_loop()
        # Neither Windows nor another thread than the main one has this; there Ctrl-C acts at once.
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            with suppress(NotImplementedError, ValueError, RuntimeError):
                loop.remove_signal_handler(signal.SIGINT)
