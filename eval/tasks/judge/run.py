"""A judging run from its plan to its result: estimate, asking, table, metrics.json, report."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import eah
from eval.errors import EvaluationError
from eval.run.checkout import git_commit
from eval.run.folder import METRICS
from eval.tasks.judge.answers import Pair
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.cost import Budget
from eval.tasks.judge.key import Key, read_key
from eval.tasks.judge.output import Outcome, estimate, headline, metrics, notes, result_table
from eval.tasks.judge.plan import JudgeInputs, plan_judging
from eval.tasks.judge.report import write_report
from eval.tasks.judge.requests import Request
from eval.tasks.judge.scoring import judged
from eval.tasks.judge.store import Judgements, answered_in

PACKAGES: Final = ("numpy", "openai", "pillow", "scipy")


def judge_pair(
    pair: Pair,
    config: JudgeConfig,
    inputs: JudgeInputs,
    *,
    output_dir: Path,
    api_key_file: Path | None = None,
    ask_again: bool = False,
    dry_run: bool = False,
    report: Path | None = None,
) -> None:
    """Get all judgements of two arms, then print and write what they come to.

    Args:
        pair: The answers.
        config: The judge's settings.
        inputs: Where pictures or objects are.
        output_dir: Folder that run folders are made in.
        api_key_file: File with the key; None for OPENAI_API_KEY.
        ask_again: Ask again what was refused or rejected.
        dry_run: Say what would be sent, and send nothing.
        report: HTML page to write.
    Raises:
        EvaluationError: If something is missing or not allowed, or judgements stay open.
    """
    plan = plan_judging(pair, config, inputs)
    folder = plan.folder(output_dir)
    keys = {request.key for request in plan.requests}
    paid = answered_in(folder.path.parent, keys, own=folder.path.name, ask_again=ask_again)
    unpaid = list({r.key: r for r in plan.requests if r.key not in paid}.values())
    if dry_run:
        print("\n".join(estimate(config, endpoint(config), unpaid)))
        return
    key = read_key(api_key_file) if unpaid else None
    if unpaid and not folder.path.exists():
        _check_budget(_budget(config, None), unpaid)
    with folder:
        judgements = Judgements(folder, key)
        judgements.borrow(plan.requests)
        left = judgements.left(plan.requests, ask_again=ask_again)
        trouble = None
        if key is not None and left:
            _check_budget(_budget(config, judgements), left)
            print("\n".join(estimate(config, endpoint(config), left)), file=sys.stderr)
            folder.begin(_provenance())
            trouble = asyncio.run(_ask(left, judgements, config, key))
        pictures = judged(plan.requests, judgements.final, config.judge_protocol)
        outcome = Outcome(config, plan, pair, pictures, judgements)
        if trouble is None or judgements.final:
            folder.write(METRICS, metrics(outcome))
            _show(outcome, folder.path)
            if report is not None:
                write_report(report, outcome, images=inputs.data_path)
    if trouble is not None:
        raise EvaluationError(trouble)


async def _ask(
    requests: Sequence[Request], judgements: Judgements, config: JudgeConfig, key: Key
) -> str | None:
    """Ask what is left, and return what is in the way of the rest; None if there is no rest.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with all replies recorded that were waited for.
    """
    # Here, because these two need the SDK, which looking at finished judgements does not.
    from eval.tasks.judge.ask import ask_all
    from eval.tasks.judge.client import Judge

    judge = Judge(config, key)
    try:
        ending = await ask_all(requests, judge, judgements, _budget(config, judgements), config)
    finally:
        await judge.close()
    if ending.interrupted:
        raise KeyboardInterrupt
    open_now = sum(request.key not in judgements.final for request in requests)
    rest = f"{open_now} of {len(requests)} judgements are open; what was paid for is kept"
    if ending.hopeless is not None:
        return f"{ending.hopeless}; {rest}"
    if ending.bound is not None:
        return f"stopped at {ending.bound}: {rest}; raise it and run the same command again"
    if ending.given_up:
        reason = next(iter(ending.given_up.values()))
        return f"{rest}; the first failed with: {reason}; run the same command again"
    return None


def _budget(config: JudgeConfig, judgements: Judgements | None) -> Budget:
    """Return what may be spent, of which earlier starts of the same run have used a part."""
    return Budget(
        max_cost=config.max_cost,
        max_requests=config.max_requests,
        spent=0.0 if judgements is None else judgements.spent,
        requests=0 if judgements is None else judgements.requests,
    )


def _check_budget(budget: Budget, requests: Sequence[Request]) -> None:
    """Check that there is room for the first request, before anything is sent.

    Raises:
        EvaluationError: Saying what it would cost at most, and what was spent.
    """
    most = requests[0].most_usd
    bound = budget.obstacle(most)
    if bound is not None:
        cost = f", which may cost ${most:.4f}" if most else ""
        raise EvaluationError(
            f"{bound} leaves no room for one request{cost}; this run has sent {budget.requests} "
            f"requests for ${budget.spent:.4f} so far: raise the bound"
        )


def _show(outcome: Outcome, folder: Path) -> None:
    """Print the result."""
    print(headline(outcome) + "\n")
    print(result_table(outcome) + "\n")
    for line in notes(outcome):
        print(line)
    print(f"run folder: {folder}")


def _provenance() -> dict[str, Any]:
    """Return versions, commit and time of a run; unlike that of other runs without torch."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "eah": eah.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "git": git_commit(),
    }
