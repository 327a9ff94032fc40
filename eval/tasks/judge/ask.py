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
from eval.tasks.judge.requests import Request, unanswered

if TYPE_CHECKING:
    from eval.tasks.judge.store import Judgements

# Judgements that fail one after another, before the run stops: the fault is not theirs then.
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
    """Send requests, each once, and record their replies, until all have one or something stops it.

    Args:
        requests: What is asked.
        judgements: What is known already, and takes what comes.
        budget: What may be spent.
        config: The judge's settings.
        key: For the endpoint.
        stops: Signals that stop it, each with what it raises in the end.
    Returns:
        What is in the way of the rest; None if there is no rest.
    Raises:
        KeyboardInterrupt: Or another of `stops`, with all replies recorded that were waited for.
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
    open_now = len(unanswered(requests, judgements.final))
    rest = f"{open_now} of {len(requests)} judgements are open; what was paid for is kept"
    if asking.hopeless is not None:
        return f"{asking.hopeless}; {rest}"
    if asking.bound is not None:
        return f"stopped at {asking.bound}: {rest}; raise it and run the same command again"
    if asking.given_up is not None:
        return f"{rest}; the first failed with: {asking.given_up}; run the same command again"
    return None


@dataclass(slots=True)
class _Asking:
    """What the workers of one call share, and at its end how it ended.

    Attributes:
        stop: Set where nothing more is to be sent.
        answered: Whether there was any reply.
        in_a_row: Judgements that failed one after another.
        quiet_until: The event loop's time before which a rate limit allows nothing.
        interrupted: What Ctrl-C or SIGTERM is to raise at the end; None if there was neither.
        bound: Which bound stopped it.
        hopeless: Why nothing more was asked.
        given_up: Why the first request without a reply has none.
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
        """Ask everything; a first Ctrl-C or SIGTERM means "send nothing more", a second "now"."""
        work = asyncio.ensure_future(self._work())

        def interrupt(kind: type[KeyboardInterrupt]) -> None:
            if self.interrupted is not None:
                work.cancel()
                return
            self.interrupted = kind
            self.stop.set()
            again = "Ctrl-C" if kind is KeyboardInterrupt else "SIGTERM"
            tqdm.write(f"waiting for replies that are paid for; {again} again drops them",
                       file=sys.stderr)  # fmt: skip

        with _signals(stops, interrupt):
            await asyncio.wait([work])
        if not work.cancelled():
            work.result()  # Raises what the work has raised.

    async def _work(self) -> None:
        while self.waiting and not self.answered and not self.stop.is_set():
            await self._one(self.waiting.popleft())
        workers = [self._worker() for _ in range(self.config.judge_workers)]
        # Not cancelled where one of them fails: the others wait for replies that are paid for.
        for result in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _worker(self) -> None:
        try:
            while self.waiting and not self.stop.is_set():
                await self._one(self.waiting.popleft())
        except BaseException:
            self.stop.set()
            raise

    async def _one(self, request: Request) -> None:
        """Ask one thing until it is answered, or given up."""
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
            self._leave(failure)

    async def _may_send(self, attempt: int, failure: Failure | None) -> bool:
        """Wait as long as is due before an attempt; False if there is to be none."""
        now = asyncio.get_running_loop().time
        if failure is not None:
            longest = self.config.longest_wait_s
            told = failure.wait_s or 0.0
            if told > longest:
                return False
            if told and failure.kind is Kind.BUSY:
                self.quiet_until = max(self.quiet_until, now() + told)
            backoff = self.config.first_wait_s * 2.0 ** (attempt - 1)  # a thousand attempts at most
            await self._sleep(told or min(backoff * (1 + random.uniform(0, JITTER)), longest))
        while self.quiet_until > now() and not self.stop.is_set():
            await self._sleep(self.quiet_until - now())
        return not self.stop.is_set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    async def _send(self, request: Request) -> Reply | Failure | None:
        """Send one request within the budget and record both; None where a bound forbids it."""
        try:
            reserved = await self.budget.reserve(request.most_usd)
        except BoundReached as error:
            self._halt(bound=str(error))
            return None
        if self.stop.is_set():
            await self.budget.give_back(reserved)
            return None
        body = request.body(self.config)
        number = self.judgements.sent(request, reserved)
        reply = await self.judge.ask(body)
        cost, measured = reserved, False
        if isinstance(reply, Failure):
            cost = 0.0 if reply.kind.free else reserved
        elif reply.prompt_tokens is not None and reply.reply_tokens is not None:
            cost, measured = cost_of(self.config, reply.prompt_tokens, reply.reply_tokens), True
        self.judgements.received(number, reply, cost)
        await self.budget.settle(request.most_usd, reserved, cost, measured=measured)
        return reply

    def _leave(self, failure: Failure) -> None:
        """Note that a request stays without a reply, and stop if too many do."""
        if failure.kind is not Kind.REJECTED:
            self.given_up = self.given_up or failure.reason
        elif self.answered:
            return  # Of this picture or text; others were taken.
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW and not self.stop.is_set():
            self._halt(hopeless=f"{self.in_a_row} judgements in a row failed, the last of them "
                       f"with: {failure.reason}")  # fmt: skip

    def _halt(self, *, bound: str | None = None, hopeless: str | None = None) -> None:
        """Send nothing more; what is under way is waited for."""
        self.bound = self.bound or bound
        self.hopeless = self.hopeless or hopeless
        self.stop.set()


@contextmanager
def _signals(
    kinds: Stops,
    interrupt: Callable[[type[KeyboardInterrupt]], None],
) -> Iterator[None]:
    """Let signals call a function in the event loop, and do what they did before afterwards."""
    # Elsewhere the loop takes no signals, and Ctrl-C acts at once.
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
            # The loop itself would leave the system's own, and SIGTERM would end the process.
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
