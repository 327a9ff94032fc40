"""One judging run, whatever is asked: what is paid for already, what it costs, and the asking."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from eah.exit_status import Terminated
from eval.errors import EvaluationError
from eval.run.folder import RunFolder
from eval.run.provenance import provenance
from eval.tasks.judge.ask import ask_all
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.cost import Budget, estimate
from eval.tasks.judge.keys import Key
from eval.tasks.judge.requests import Outcome, Request, unanswered
from eval.tasks.judge.store import Judgements, answered_in, any_reply

PACKAGES: Final = ("numpy", "openai", "pillow")
STOPS: Final = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@dataclass(frozen=True, slots=True)
class Asked:
    """How a judging run is started.

    Attributes:
        dry_run: Say what would be sent, and send nothing.
        ask_again: Ask again what was refused or rejected, and replies that can't be read.
        reads: Whether a reply can be read.
        unsent: What is said of what is not sent; empty for nothing.
    """

    dry_run: bool = False
    ask_again: bool = False
    reads: Callable[[Outcome], bool] = any_reply
    unsent: str = ""


def judge_all(
    requests: Sequence[Request],
    folder: RunFolder,
    config: JudgeConfig,
    found: Key | EvaluationError,
    asked: Asked,
    report: Callable[[Judgements], None],
) -> None:
    """Get all judgements of a run, and have them reported.

    Args:
        requests: All that the run asks.
        folder: The run's.
        config: The judge's settings.
        found: The key, or why there is none, which matters if something is to be asked.
        asked: How it is started.
        report: Called in the locked folder with what is known in the end, if anything is.
    Raises:
        EvaluationError: If something is missing or not allowed, or judgements stay open.
    """
    keys = {request.key for request in requests}
    paid = answered_in(
        folder.path.parent, keys,
        own=folder.path.name, ask_again=asked.ask_again, reads=asked.reads,
    )  # fmt: skip
    done = {key: one for key, one in paid.items() if asked.reads(one) or not asked.ask_again}
    unpaid = unanswered(requests, done)
    unsent = f"not sent: {asked.unsent}" if asked.unsent else ""
    if asked.dry_run:
        print(estimate(config, [request.tokens for request in unpaid]))
        print(unsent, end="\n" if unsent else "")
        return
    if unpaid and isinstance(found, EvaluationError):
        raise found
    key = None if isinstance(found, EvaluationError) else found
    if unpaid and not folder.path.exists():
        Budget(config).check(unpaid[0].most_usd)
    with folder:
        judgements = Judgements(folder, key)
        judgements.borrow(paid)
        left = judgements.left(requests, ask_again=asked.ask_again, reads=asked.reads)
        trouble = None
        if key is not None and left:
            budget = Budget(config, judgements.spent, judgements.requests)
            budget.check(left[0].most_usd)
            print(estimate(config, [request.tokens for request in left]), file=sys.stderr)
            print(unsent, end="\n" if unsent else "", file=sys.stderr)
            folder.begin(key.hide_in(provenance(PACKAGES)))
            trouble = asyncio.run(ask_all(left, judgements, budget, config, key, STOPS))
        if trouble is None or judgements.final:
            report(judgements)
            print(f"run folder: {folder.path}")
    if trouble is not None:
        raise EvaluationError(trouble)
