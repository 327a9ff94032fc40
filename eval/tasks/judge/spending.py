"""The cost of a judging run, for metrics.json and as printed text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.requests import ANSWERED

if TYPE_CHECKING:
    from eval.tasks.judge.store import Judgements


@dataclass(frozen=True, slots=True)
class Spent:
    """Requests, tokens and cost of a run over all starts; `usd` is None without a price."""

    requests: int
    without_reply: int
    uncounted: int
    borrowed: int
    prompt_tokens: int
    reply_tokens: int
    usd: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self)


def spent_by(judgements: Judgements, config: JudgeConfig) -> Spent:
    """Compute the requests, tokens and cost of a run."""
    own = [one for one in judgements.outcomes if one.request is not None]
    return Spent(
        requests=judgements.requests,
        without_reply=len(judgements.lost),
        uncounted=sum(
            one.outcome == ANSWERED and None in (one.prompt_tokens, one.reply_tokens) for one in own
        ),
        borrowed=len(judgements.outcomes) - len(own),
        prompt_tokens=sum(one.prompt_tokens or 0 for one in own),
        reply_tokens=sum(one.reply_tokens or 0 for one in own),
        usd=judgements.spent if config.price else None,
    )


def spending_notes(took: Spent) -> list[str]:
    """Return the cost of a run as text, one line per note."""
    lines = [
        f"spent: {took.requests} requests, {took.prompt_tokens:,} prompt + "
        f"{took.reply_tokens:,} reply tokens, "
        + ("cost unknown" if took.usd is None else f"${took.usd:.4f}")
        + (f"; {took.borrowed} replies were paid for by other runs" if took.borrowed else "")
    ]
    if took.without_reply:
        lines.append(
            f"note: {took.without_reply} requests were interrupted before their reply; they count "
            "at their highest possible cost"
        )
    if took.uncounted:
        lines.append(
            f"note: the endpoint sent no valid token counts for {took.uncounted} replies; they "
            "count at their highest possible cost"
        )
    return lines
