"""Run the requests of a judging run: find paid replies, estimate the cost, and send the rest."""

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
from eval.tasks.judge.requests import Outcome, Request, open_requests
from eval.tasks.judge.store import Judgements, any_reply, find_paid_answers

PACKAGES: Final = ("numpy", "openai", "pillow")
STOPS: Final = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    """Options of a judging run.

    Attributes:
        dry_run: Print what would be sent, and send nothing.
        ask_again: Repeat requests that were refused or rejected, or whose reply can't be read.
        reads: Returns whether a reply can be read.
        unsent: Printed note on what is not sent; empty for none.
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
    options: JudgingOptions,
    report: Callable[[Judgements], None],
) -> None:
    """Get all judgements of a run, and report them.

    Args:
        requests: All requests of the run.
        folder: The run folder.
        config: The judge's settings.
        found: The key, or the error that there is none, which is raised if a key is needed.
        options: Options of the run.
        report: Called at the end with the judgements, if there are any, while the folder is locked.
    Raises:
        EvaluationError: If something is missing or not allowed, or judgements remain open.
    """
    keys = {request.key for request in requests}
    paid = find_paid_answers(
        folder.path.parent, keys,
        own=folder.path.name, ask_again=options.ask_again, reads=options.reads,
    )  # fmt: skip
    done = {key: one for key, one in paid.items() if options.reads(one) or not options.ask_again}
    unpaid = open_requests(requests, done)
    unsent = f"not sent: {options.unsent}" if options.unsent else ""
    if options.dry_run:
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
        left = judgements.open_requests(requests, ask_again=options.ask_again, reads=options.reads)
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
