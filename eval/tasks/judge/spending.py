"""What a judging run took, for metrics.json and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.requests import ANSWERED

if TYPE_CHECKING:
    from eval.tasks.judge.store import Judgements


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run took, earlier starts included; `usd` is None if the model has no price."""

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
    """Return what a run took."""
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
    """Return what a run took, a line each."""
    lines = [
        f"spent: {took.requests} requests, {took.prompt_tokens:,} + "
        f"{took.reply_tokens:,} tokens, "
        + ("cost not known" if took.usd is None else f"${took.usd:.4f}")
        + (f"; {took.borrowed} replies were paid for by other runs" if took.borrowed else "")
    ]
    if took.without_reply:
        lines.append(
            f"note: {took.without_reply} requests were cut off before their reply came; they "
            "count at the most they may have cost"
        )
    if took.uncounted:
        lines.append(
            f"note: the endpoint did not say, or said no possible number, how many tokens "
            f"{took.uncounted} replies took; they count at the most they may have cost"
        )
    return lines
