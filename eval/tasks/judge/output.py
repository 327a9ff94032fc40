"""What is said of a judging run: the estimate before it, the table and the notes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

from eval.output.table import render
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED, Interval
from eval.tasks.judge.answers import Pair
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.cost import BYTES_PER_TOKEN, TYPICAL_REPLY, cost_of
from eval.tasks.judge.plan import Plan
from eval.tasks.judge.requests import Request
from eval.tasks.judge.scoring import UNPARSED, JudgedPicture, Result, results, states
from eval.tasks.judge.store import Judgements

SHOWN: Final = 3  # Unreadable replies that are printed.
SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judging run as far as it came.

    Attributes:
        config: The judge's settings.
        plan: What was asked.
        pair: The answers.
        pictures: What the judge said.
        judgements: Every request and reply.
    """

    config: JudgeConfig
    plan: Plan
    pair: Pair
    pictures: list[JudgedPicture]
    judgements: Judgements


def estimate(config: JudgeConfig, endpoint: str, requests: Sequence[Request]) -> list[str]:
    """Return what sending some requests may come to, a line each."""
    prompt_most = sum(request.tokens.prompt_most for request in requests)
    reply_most = sum(request.tokens.reply_most for request in requests)
    prompt = sum(request.tokens.prompt_likely for request in requests)
    reply = sum(request.tokens.reply_likely for request in requests)
    most, likely = cost_of(config, prompt_most, reply_most), cost_of(config, prompt, reply)
    cost = (
        f"cost: about ${likely:.2f}, at most ${most:.2f}, by the prices in configs/judge.yaml"
        if most is not None and likely is not None
        else f"cost: not known, {config.judge_model} has no price in configs/judge.yaml"
    )
    return [
        f"to send: {len(requests)} requests to {config.judge_model} at {endpoint}",
        f"tokens: about {prompt:,} + {reply:,} in replies ({BYTES_PER_TOKEN} bytes a token, "
        f"replies of {TYPICAL_REPLY}), at most {prompt_most:,} + {reply_most:,}",
        cost,
    ]  # fmt: skip


def metrics(outcome: Outcome) -> dict[str, Any]:
    """Return the content of metrics.json."""
    found = results(outcome.pictures)
    counted = sum(picture.counts for picture in outcome.pictures)
    return {
        "protocol": outcome.config.judge_protocol,
        "mode": outcome.config.judge_mode,
        "judge": judges_of(outcome) or [outcome.config.judge_model],
        "first": outcome.pair.first.name,
        "second": outcome.pair.second.name,
        "pictures": {"judged": len(outcome.pictures), "counted": counted},
        "judgements": states(outcome.pictures),
        "scores": {name: _as_dict(result) for name, result in found.items()},
        "bootstrap": {
            "resampled": "pictures",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        "spent": spent(outcome),
    }


def _as_dict(result: Result) -> dict[str, Any]:
    """Return a result for a JSON file."""
    flips = result.flips
    return {
        "first": result.first.as_dict(),
        "second": result.second.as_dict(),
        "second_minus_first": result.difference.as_dict(),
        "wins_of_second": result.wins,
        "ties": result.ties,
        "losses_of_second": result.losses,
        "sign_test_p": result.sign_test.p_value,
        "flips": None if flips is None else {
            "pictures": flips.pictures,
            "changed": flips.changed,
            "reversed": flips.reversed,
            "rate": flips.rate,
        },
    }  # fmt: skip


def spent(outcome: Outcome) -> dict[str, Any]:
    """Return what the run took, earlier starts included."""
    replies = outcome.judgements.replies
    own = [row for row in replies if row["request"] is not None]
    return {
        "requests": outcome.judgements.requests,
        "without_reply": len(outcome.judgements.lost),
        "borrowed": len(replies) - len(own),
        "prompt_tokens": sum(row.get("prompt_tokens") or 0 for row in own),
        "reply_tokens": sum(row.get("reply_tokens") or 0 for row in own),
        "usd": outcome.judgements.spent if outcome.config.price else None,
    }


def judges_of(outcome: Outcome) -> list[str]:
    """Return the models that say they replied; an alias may stand for several."""
    wanted = outcome.judgements.final.values()
    return sorted({row["model"] for row in wanted if row.get("model")})


def headline(outcome: Outcome) -> str:
    """Return what was compared, by whom and how, for people."""
    config, pair = outcome.config, outcome.pair
    shown = "the picture" if config.judge_mode == "image" else "no picture, but COCO's objects"
    orders = "both orders" if outcome.plan.both_orders else "one order (--single-order)"
    return (
        f"{pair.second.name} against {pair.first.name} on {len(pair.ids)} pictures\n"
        f"judge {config.judge_model}, protocol {config.judge_protocol}, shown {shown}, {orders}"
    )


def result_table(outcome: Outcome) -> str:
    """Return the result table: a line per criterion, grades from 1 to 10."""
    pair = outcome.pair
    header = ["criterion", pair.first.name, pair.second.name, "difference (95 %)",
              "win/tie/loss", "sign test", "flips"]  # fmt: skip
    lines = [
        [
            name,
            f"{result.first.value:.2f}",
            f"{result.second.value:.2f}",
            grade_difference(result.difference),
            f"{result.wins}/{result.ties}/{result.losses}",
            f"p = {result.sign_test.p_value:.3f}",
            flips_in_words(result),
        ]
        for name, result in results(outcome.pictures).items()
    ]
    return render(header, lines) if lines else "no picture has all its judgements: no averages"


def notes(outcome: Outcome) -> list[str]:
    """Return what has to be known beside the table, a line each."""
    counts, took = states(outcome.pictures), spent(outcome)
    counted = sum(picture.counts for picture in outcome.pictures)
    lines = [
        f"averages and wins are over the {counted} of {len(outcome.pictures)} pictures whose "
        "judgements can all be read; wins are those of " + outcome.pair.second.name,
        "judgements: " + ", ".join(f"{number} {state}" for state, number in counts.items()),
    ]
    if outcome.plan.both_orders:
        lines.append(
            "grades are means over both orders; flips: pictures whose winner changes with the order"
        )
    else:
        lines.append("one order only: a judge that prefers a place shows as a difference here")
    for image_id, order, reason, text in unreadable(outcome.pictures)[:SHOWN]:
        shown = " ".join(text.split())[:SHOWN_CHARACTERS]
        lines.append(f"unparsed: image {image_id}, order {order}: {reason}: {shown!r}")
    lines.append(
        f"spent: {took['requests']} requests, {took['prompt_tokens']:,} + "
        f"{took['reply_tokens']:,} tokens, "
        + ("cost not known" if took["usd"] is None else f"${took['usd']:.4f}")
        + (f"; {took['borrowed']} replies were paid for by other runs" if took["borrowed"] else "")
    )
    if took["without_reply"]:
        lines.append(
            f"note: {took['without_reply']} requests were cut off before their reply came; they "
            "count at the most they may have cost"
        )
    if len(judges_of(outcome)) > 1:
        lines.append(f"note: several models replied: {', '.join(judges_of(outcome))}")
    return lines


def unreadable(pictures: Sequence[JudgedPicture]) -> list[tuple[int, str, str, str]]:
    """Return image id, order, reason and text of each reply that can't be read."""
    return [
        (picture.image_id, judgement.order, judgement.reason, judgement.text)
        for picture in pictures
        for judgement in picture.judgements
        if judgement.state == UNPARSED
    ]


def grade_difference(found: Interval) -> str:
    """Return a difference of grades with its interval, as +0.25 (-0.10 to +0.60)."""
    # Adding 0.0 makes +0.00 of what would be printed as -0.00.
    value, low, high = (
        "" if isnan(end) else f"{round(end, 2) + 0.0:+.2f}"
        for end in (found.value, found.low, found.high)
    )
    return f"{value} ({low} to {high})" if low else f"{value} (no interval)"


def flips_in_words(result: Result) -> str:
    """Return how often the winner changes with the order."""
    flips = result.flips
    if flips is None:
        return "not asked"
    return f"{flips.changed} of {flips.pictures} ({100 * flips.rate:.0f} %)"
