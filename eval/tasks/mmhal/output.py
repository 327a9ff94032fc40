"""Report a judging run of MMHal-Bench: metrics.json, the tables and their notes."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any, Final

from eval.output.table import fit
from eval.stats.intervals import CONFIDENCE, NONE, RESAMPLES, SEED, Interval, few_pictures_note
from eval.stats.permutation import PermutationTest
from eval.tasks.judge.scoring import UNPARSED
from eval.tasks.judge.spending import spending_notes, spent_by
from eval.tasks.mmhal.questions import COUNT, in_order
from eval.tasks.mmhal.scoring import count_read_differently

if TYPE_CHECKING:
    from eval.tasks.mmhal.answers import Answers
    from eval.tasks.mmhal.rated import RatedRun

SCRIPT: Final = "summarize_gpt_mmhal.py"
SHOWN: Final = 3  # Unreadable replies of an arm that are printed.
SHOWN_CHARACTERS: Final = 120


def metrics(run: RatedRun) -> dict[str, Any]:
    """Return the content of metrics.json."""
    return {
        "protocol": "mmhal",
        "judge": run.judges or [run.config.judge_model],
        "endpoint": run.plan.settings["endpoint"],
        "temperature": run.config.temperature,
        "template_sha256": run.plan.settings["template"],
        "questions": len(run.questions),
        "in_the_benchmarks_order": in_order(run.questions),
        "reference": run.reference,
        "arms": {arm.name: _arm(run, arm) for arm in run.arms},
        "differences": {
            name: one and {**one.as_dict(), "p_holm": _or_none(run.adjusted[name])}
            for name, one in run.differences.items()
        },
        "bootstrap": {"resampled": "pictures", "confidence": CONFIDENCE, "resamples": RESAMPLES,
                      "seed": SEED},
        "spent": spent_by(run.judgements, run.config).as_dict(),
    }  # fmt: skip


def _arm(run: RatedRun, arm: Answers) -> dict[str, Any]:
    found, reference = run.numbers[arm.name], run.as_reference(arm.name)
    by_kind = {kind: of[arm.name] for kind, of in run.by_kind.items()}
    return {
        "source": arm.source,
        "sha256": arm.hash(),
        "answered": len(arm.texts),
        "judgements": run.states(arm.name),
        **({} if found is None else found.as_dict()),
        "by_type": {kind: one and one.as_dict() for kind, one in by_kind.items()},
        "read_differently_by_the_script": count_read_differently(run.replied(arm.name)),
        "as_the_script": reference and {
            "average_score": reference.average,
            "hallucination_rate": reference.rate,
            "by_type": reference.by_type if in_order(run.questions) else None,
        },
    }  # fmt: skip


def _or_none(value: float) -> float | None:
    return None if isnan(value) else value


def headline(run: RatedRun) -> str:
    """Return in two lines what was judged, by which model and how."""
    sent = run.config.temperature
    return (
        f"MMHal-Bench, {len(run.questions)} questions, ratings from 0 to 6, no picture shown\n"
        f"judge {run.config.judge_model}, temperature {'not sent' if sent is None else f'{sent:g}'}"
        f", template SHA-256 {run.plan.settings['template'][:12]}"
    )


def tables(run: RatedRun) -> str:
    """Return the tables of arms, question types and differences."""
    names = [arm.name for arm in run.arms]
    if not any(run.numbers.values()):
        return "no averages: no answer has a readable rating"
    rows = []
    for arm in run.arms:
        found, states = run.numbers[arm.name], run.states(arm.name)
        cells = [NONE, NONE] if found is None else [in_points(found.score), found.rate.percent(1)]
        rated = states["read"]
        rows.append([arm.name, *cells, str(rated), str(len(arm.texts) - rated)])
    header = ["arm", "average score (95 %)", "hallucination % (95 %)", "rated", "unscored"]
    parts = [fit(header, rows, names=names)]
    typed = [
        [kind, str(sum(one.kind == kind for one in run.questions)),
         *(NONE if (one := of[name]) is None else in_points(one.score) for name in names)]
        for kind, of in run.by_kind.items()
    ]  # fmt: skip
    parts.append(fit(["question type", "items", *names], typed, keys=2))
    if run.differences:
        parts.append(_differences(run))
    return "\n\n".join(parts)


def _differences(run: RatedRun) -> str:
    """Return the table of differences."""
    rows = []
    for name, one in run.differences.items():
        if one is None:
            rows.append([f"{name} - {run.reference}", NONE, NONE, NONE, NONE, "0"])
            continue
        found = one.numbers
        rows.append([
            f"{name} - {run.reference}",
            in_points(found.score, signed=True), p_value(one.score_test),
            found.rate.points(1), p_value(one.rate_test), str(found.count),
        ])  # fmt: skip
    header = ["difference", "score (95 %)", "p", "hallucination % (95 %)", "p", "rated"]
    text = fit(header, rows)
    several = {name: p for name, p in run.adjusted.items() if not isnan(p)}
    if len(several) > 1:
        adjusted = ", ".join(f"{name} {p:.2g}" for name, p in several.items())
        text += f"\n\np of scores after Holm's correction: {adjusted}"
    return text


def script_table(run: RatedRun) -> str:
    """Return the numbers that the benchmark's script computes from the replies, with its digits."""
    rows = []
    for arm in run.arms:
        found = run.as_reference(arm.name)
        replied = run.replied(arm.name)
        differing = f"{count_read_differently(replied)} of {len(replied)}"
        if found is None:
            rows.append([arm.name, NONE, NONE, NONE, differing])
            continue
        score, rate, kinds = (line.rpartition(": ")[2] for line in found.lines())
        shown = kinds.replace(",", " ") if in_order(run.questions) else NONE
        rows.append([arm.name, score, rate, shown, differing])
    header = ["arm", "score", "rate", "score by type (item mod 8)", "read differently"]
    return f"as {SCRIPT} reads the same replies:\n\n" + fit(header, rows)


def notes(run: RatedRun) -> list[str]:
    """Return the notes that explain the tables, one line each."""
    lines = [
        "a hallucination is a rating below 3; answers without a readable rating are left out, "
        f"while {SCRIPT} counts them as 0",
        "scores of different judges are not comparable: the benchmark's judge was gpt-4-0314, "
        "which is retired; the judge gets labels and a reference answer instead of the picture",
    ]
    total = len(run.questions)
    for arm in run.arms:
        states = ", ".join(f"{count} {state}" for state, count in run.states(arm.name).items())
        empty = sum(not text.strip() for text in arm.texts.values())
        note = f"{arm.name}: {len(arm.texts)} of {total} questions answered; replies: {states}"
        lines.append(note + (f"; {empty} empty answer(s), judged as they are" if empty else ""))
    if total != COUNT:
        lines.append(f"note: the benchmark has {COUNT} questions, these are {total}")
    if not in_order(run.questions):
        lines.append(
            f"note: the questions are not in the benchmark's order; types are taken from the rows, "
            f"and {SCRIPT}'s numbers by type, which depend on the order, are left out"
        )
    without = [arm.name for arm in run.arms if run.as_reference(arm.name) is None]
    if without:
        lines.append(
            f"note: {SCRIPT} needs {COUNT} replies, but some are missing for {', '.join(without)}"
        )
    counted = min((one.count for one in run.numbers.values() if one), default=0)
    lines += few_pictures_note(counted) if counted else []
    for arm in run.arms:
        bad = [(at, one) for at, one in run.ratings[arm.name].items() if one.state == UNPARSED]
        for at, one in bad[:SHOWN]:
            shown = " ".join(one.text.split())[-SHOWN_CHARACTERS:]
            lines.append(f"unreadable: {arm.name}, question {at + 1}: {one.reason}: {shown!r}")
    lines += spending_notes(spent_by(run.judgements, run.config))
    if len(run.judges) > 1:
        lines.append(f"note: several models replied: {', '.join(run.judges)}")
    return lines


def in_points(found: Interval, *, signed: bool = False) -> str:
    """Return a score with its interval, as 3.12 (2.70..3.55) or +0.25 (-0.10 to +0.60)."""
    if isnan(found.value):
        return NONE
    form = "+.2f" if signed else ".2f"
    # Adding 0.0 makes +0.00 of what would be printed as -0.00.
    value, low, high = (
        "" if isnan(end) else f"{round(end, 2) + 0.0:{form}}"
        for end in (found.value, found.low, found.high)
    )
    if not low:
        return f"{value} (no interval)" if signed else value
    return f"{value} ({low} to {high})" if signed else f"{value} ({low}..{high})"


def p_value(test: PermutationTest) -> str:
    """Return a test's p-value for a table."""
    return NONE if isnan(test.p_value) else f"{test.p_value:.2g}"
