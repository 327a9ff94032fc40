"""Report a judging run: metrics.json, and the table with its notes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from eval.output.table import fit
from eval.stats.intervals import (
    CONFIDENCE,
    NONE,
    RESAMPLES,
    SEED,
    Interval,
    few_pictures_note,
)
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.protocols import CRITERIA
from eval.tasks.judge.requests import Pair
from eval.tasks.judge.scoring import (
    UNPARSED,
    JudgedPicture,
    Result,
    read_judgements,
    results,
    states,
)
from eval.tasks.judge.spending import Spent, spending_notes, spent_by

if TYPE_CHECKING:
    from eval.tasks.judge.plan import Plan
    from eval.tasks.judge.store import Judgements

SHOWN: Final = 3  # Unreadable replies that are printed.
SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True)
class JudgedRun:
    """A judging run as far as it came."""

    config: JudgeConfig
    plan: Plan
    pair: Pair
    judgements: Judgements

    @cached_property
    def pictures(self) -> list[JudgedPicture]:
        """What the judge said."""
        return read_judgements(
            self.plan.requests, self.judgements.final, self.config.judge_protocol
        )

    @cached_property
    def results(self) -> dict[str, Result]:
        """The result by each criterion; empty if no picture counts."""
        return results(self.pictures)

    @property
    def counted(self) -> int:
        """How many pictures count."""
        return sum(picture.counts for picture in self.pictures)

    @property
    def judges(self) -> list[str]:
        """The models that say they replied; an alias may stand for several."""
        return sorted({one.model for one in self.judgements.final.values() if one.model})

    @property
    def spent(self) -> Spent:
        """What the run took."""
        return spent_by(self.judgements, self.config)


def metrics(run: JudgedRun) -> dict[str, Any]:
    """Return the content of metrics.json."""
    return {
        "protocol": run.config.judge_protocol,
        "mode": run.config.judge_mode,
        "judge": run.judges or [run.config.judge_model],
        "first": run.pair.first.name,
        "second": run.pair.second.name,
        "pictures": {
            "compared": len(run.pair.ids),
            "equal": len(run.pair.equal),
            "judged": len(run.pictures),
            "counted": run.counted,
        },
        "judgements": states(run.pictures),
        "scores": {name: result.as_dict() for name, result in run.results.items()},
        "bootstrap": {
            "resampled": "pictures",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        "spent": run.spent.as_dict(),
    }


def metrics_without_judgements(pair: Pair) -> dict[str, Any]:
    """Return the content of `--json` where all pictures have two equal texts."""
    pictures = {"compared": len(pair.ids), "equal": len(pair.equal), "judged": 0, "counted": 0}
    return {
        "first": pair.first.name,
        "second": pair.second.name,
        "pictures": pictures,
        "scores": {},
    }


def headline(run: JudgedRun) -> tuple[str, str]:
    """Return what was compared, and by whom and how, for people."""
    config, pair = run.config, run.pair
    shown = "the picture" if config.judge_mode == "image" else "COCO's objects, no picture"
    orders = "both orders" if run.plan.both_orders else "one order (--single-order)"
    return (
        f"{pair.second.name} against {pair.first.name} on {len(pair.ids)} pictures",
        f"judge {config.judge_model}, protocol {config.judge_protocol}, shown {shown}, {orders}",
    )


def result_table(run: JudgedRun) -> str:
    """Return the result table: a line per criterion, grades from 1 to 10."""
    header = ["criterion", run.pair.first.name, run.pair.second.name, "difference (95 %)",
              "win/tie/loss", "sign test", "flips"]  # fmt: skip
    lines = [
        [
            name,
            f"{result.first.value:.2f}",
            f"{result.second.value:.2f}",
            grade_difference(result.difference),
            f"{result.wins}/{result.ties}/{result.losses}",
            f"p = {result.p_holm:.2g}",
            flips_in_words(result),
        ]
        for name, result in run.results.items()
    ]
    return fit(header, lines) if lines else "no picture has all its judgements: no averages"


def notes(run: JudgedRun) -> list[str]:
    """Return the notes on the results, then what the run cost, a line each."""
    wins = f"win/tie/loss: of {run.pair.second.name}"
    test = f"sign test: of wins against losses; p is Holm-adjusted for {len(CRITERIA)} criteria"
    return [wins, test, *result_notes(run), *_unparsed(run), *spending_notes(run.spent)]


def result_notes(run: JudgedRun) -> list[str]:
    """Return what is needed to read the table, a line each."""
    counts = states(run.pictures)
    lines = [
        f"averages and wins are over the {run.counted} of {len(run.pictures)} pictures whose "
        "judgements can all be read",
        "judgements: " + ", ".join(f"{number} {state}" for state, number in counts.items()),
        "grades are means over both orders; flips: pictures whose winner changes with the order"
        if run.plan.both_orders
        else "one order only: a judge that prefers a position shows as a difference here",
    ]
    if run.pair.equal:
        lines.insert(0, run.pair.equal_in_words())
    lines += few_pictures_note(run.counted) if run.counted else []
    if len(run.judges) > 1:
        lines.append(f"note: several models replied: {', '.join(run.judges)}")
    return lines


def _unparsed(run: JudgedRun) -> list[str]:
    """Return the first unreadable replies, a line each; the page shows them with their pictures."""
    unparsed = [(picture.image_id, one) for picture in run.pictures for one in picture.judgements
                if one.state == UNPARSED]  # fmt: skip
    return [
        f"unparsed: image {image_id}, order {one.order}: {one.reason}: "
        f"{' '.join(one.text.split())[:SHOWN_CHARACTERS]!r}"
        for image_id, one in unparsed[:SHOWN]
    ]


def grade_difference(found: Interval) -> str:
    """Return a difference of grades with its interval, as +0.25 (-0.10 to +0.60)."""
    if isnan(found.value):
        return NONE
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
    if not flips.pictures:
        return NONE
    return f"{flips.changed} of {flips.pictures} ({100 * flips.rate:.0f} %)"
