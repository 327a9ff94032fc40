"""Send many requests to the judge concurrently, with bounds on requests, cost and waiting time.

The first request is sent alone. One request is enough to detect that none can work (no such model,
a wrong key, no server). If it costs more than estimated, the reservation for each of the others is
increased before they are sent.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from tqdm import tqdm

from eval.tasks.judge.client import Judge
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.cost import BoundReached, Budget, cost_of
from eval.tasks.judge.keys import Key
from eval.tasks.judge.replies import Failure, Kind, Reply
from eval.tasks.judge.requests import Request, open_requests

if TYPE_CHECKING:
    from eval.tasks.judge.store import Judgements

# Number of consecutive failures after which the run stops: the cause is then not a single request.
MOST_IN_A_ROW: Final = 3
JITTER: Final = 0.25
Stops = Mapping[signal.Signals, type[KeyboardInterrupt]]
CTRL_C: Final[Stops] = {signal.SIGINT: KeyboardInterrupt}


async def ask_all(
    requests: Sequence[Request],
    judgements: Judgements,
    budget: Budget,
    config: JudgeConfig,
    key: Key,
    stops: Stops = CTRL_C,
) -> str | None:
    """Send each request once and record the replies, until all are answered or something stops it.

    Args:
        requests: The requests to send.
        judgements: The record of requests and replies, which is extended.
        budget: What may be spent.
        config: The judge's settings.
        key: Key for the endpoint.
        stops: Signals that stop the run, each with the exception that is raised at the end.
    Returns:
        Why requests are still open; None if all are answered.
    Raises:
        KeyboardInterrupt: Or another exception of `stops`, after recording pending replies.
    """
    judge = Judge(config, key)
    try:
        with tqdm(total=len(requests), unit="judgement", desc=config.judge_model) as progress:
            asking = _Asking(deque(requests), judge, judgements, budget, config, progress)
            await asking.run(stops)
    finally:
        await judge.close()
    if asking.interrupted is not None:
        raise asking.interrupted
    open_now = len(open_requests(requests, judgements.final))
    rest = f"{open_now} of {len(requests)} judgements are open; all paid replies are kept"
    if asking.hopeless is not None:
        return f"{asking.hopeless}; {rest}"
    if asking.bound is not None:
        return f"stopped at {asking.bound}: {rest}; raise it and run the same command again"
    if asking.given_up is not None:
        return f"{rest}; the first failed with: {asking.given_up}; run the same command again"
    return None


@dataclass(slots=True)
class _Asking:
    """State that the workers of one call share, and how the call ended.

    Attributes:
        stop: Set when no more requests may be sent.
        answered: Whether there was any reply.
        in_a_row: Number of consecutive failed judgements.
        quiet_until: Time of the event loop before which a rate limit forbids requests.
        interrupted: Exception to raise at the end after Ctrl-C or SIGTERM; None without them.
        bound: The bound that stopped the run.
        hopeless: Why no further request was sent.
        given_up: Why the first request without a reply failed.
    """

    waiting: deque[Request]
    judge: Judge
    judgements: Judgements
    budget: Budget
    config: JudgeConfig
    progress: tqdm[NoReturn]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    answered: bool = False
    in_a_row: int = 0
    quiet_until: float = 0.0
    interrupted: type[KeyboardInterrupt] | None = None
    bound: str | None = None
    hopeless: str | None = None
    given_up: str | None = None

    async def run(self, stops: Stops) -> None:
        """Send all requests. A first Ctrl-C or SIGTERM stops sending; a second stops waiting."""
        work = asyncio.ensure_future(self._work())

        def interrupt(kind: type[KeyboardInterrupt]) -> None:
            if self.interrupted is not None:
                work.cancel()
                return
            self.interrupted = kind
            self.stop.set()
            again = "Ctrl-C" if kind is KeyboardInterrupt else "SIGTERM"
            tqdm.write(f"waiting for replies that are already paid for; another {again} drops them",
                       file=sys.stderr)  # fmt: skip

        with _signals(stops, interrupt):
            await asyncio.wait([work])
        if not work.cancelled():
            work.result()  # Reraises exceptions of the task.

    async def _work(self) -> None:
        while self.waiting and not self.answered and not self.stop.is_set():
            await self._ask_one(self.waiting.popleft())
        workers = [self._worker() for _ in range(self.config.judge_workers)]
        # If one worker fails, the others are not cancelled: they wait for paid replies.
        for result in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _worker(self) -> None:
        try:
            while self.waiting and not self.stop.is_set():
                await self._ask_one(self.waiting.popleft())
        except BaseException:
            self.stop.set()
            raise

    async def _ask_one(self, request: Request) -> None:
        """Send one request until it is answered or given up."""
        failure: Failure | None = None
        for attempt in range(self.config.max_attempts):
            if not await self._may_send(attempt, failure):
                break
            reply = await self._send(request)
            if reply is None:
                return
            if isinstance(reply, Reply):
                self.answered, self.in_a_row = True, 0
                self.progress.update()
                return
            failure = reply
            unreached = failure.kind in (Kind.UNREACHED, Kind.PAGE) and not self.answered
            if unreached or failure.kind is Kind.HOPELESS:
                self._halt(hopeless=failure.reason)
                return
            if failure.kind is Kind.REJECTED:
                self.progress.update()
                break
        if failure is not None:
            self._record_failure(failure)

    async def _may_send(self, attempt: int, failure: Failure | None) -> bool:
        """Wait before an attempt as long as required; return False if it must not be made."""
        now = asyncio.get_running_loop().time
        if failure is not None:
            longest = self.config.longest_wait_s
            requested = failure.wait_s or 0.0
            if requested > longest:
                return False
            if requested and failure.kind is Kind.BUSY:
                self.quiet_until = max(self.quiet_until, now() + requested)
            backoff = self.config.first_wait_s * 2.0 ** (attempt - 1)  # a thousand attempts at most
            await self._sleep(requested or min(backoff * (1 + random.uniform(0, JITTER)), longest))
        while self.quiet_until > now() and not self.stop.is_set():
            await self._sleep(self.quiet_until - now())
        return not self.stop.is_set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    async def _send(self, request: Request) -> Reply | Failure | None:
        """Send a request within the budget and record its reply; None if a bound forbids it."""
        try:
            reserved = await self.budget.reserve(request.most_usd)
        except BoundReached as error:
            self._halt(bound=str(error))
            return None
        if self.stop.is_set():
            await self.budget.give_back(reserved)
            return None
        body = request.body(self.config)
        number = self.judgements.record_request(request, reserved)
        reply = await self.judge.ask(body)
        cost, measured = reserved, False
        if isinstance(reply, Failure):
            cost = 0.0 if reply.kind.free else reserved
        elif reply.prompt_tokens is not None and reply.reply_tokens is not None:
            cost, measured = cost_of(self.config, reply.prompt_tokens, reply.reply_tokens), True
        self.judgements.record_reply(number, reply, cost)
        await self.budget.settle(request.most_usd, reserved, cost, measured=measured)
        return reply

    def _record_failure(self, failure: Failure) -> None:
        """Record that a request has no reply, and stop after too many consecutive failures."""
        if failure.kind is not Kind.REJECTED:
            self.given_up = self.given_up or failure.reason
        elif self.answered:
            return  # Due to this picture or text, since other requests were accepted.
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW and not self.stop.is_set():
            self._halt(hopeless=f"{self.in_a_row} judgements in a row failed, the last of them "
                       f"with: {failure.reason}")  # fmt: skip

    def _halt(self, *, bound: str | None = None, hopeless: str | None = None) -> None:
        """Stop sending requests; replies to pending ones are still awaited."""
        self.bound = self.bound or bound
        self.hopeless = self.hopeless or hopeless
        self.stop.set()


@contextmanager
def _signals(
    kinds: Stops,
    interrupt: Callable[[type[KeyboardInterrupt]], None],
) -> Iterator[None]:
    """Make signals call a function in the event loop, and restore their handlers afterwards."""
    # Without support in the event loop, Ctrl-C acts at once.
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in kinds}
    for number, kind in kinds.items():
        loop.add_signal_handler(number, interrupt, kind)
    try:
        yield
    finally:
        for number, handler in before.items():
            # The loop itself would restore the default handler, so SIGTERM would end the process.
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
