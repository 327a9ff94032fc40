"""Compute the numbers of HallusionBench's official leaderboard, and the causes of errors.

Causes are language hallucination (LH: the answer does not depend on the picture), visual illusion
(VI), or mixed. Source: `get_eval_pair_all`, `get_eval_fig` and `yes_ratio_stats` in its `utils.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.output.table import fit
from eval.stats.intervals import NONE
from eval.tasks.hallusionbench.rows import Judged, Verdict
from eval.tasks.yes_no.parsers import JUDGE
from eval.tasks.yes_no.task import NO, YES

WRONG, RIGHT, UNCLEAR = 0, 1, 2
EDITED: Final = "2"  # visual_input of an edited figure
FIRST: Final = "0"  # the original figure of a set; in VS, the question without a picture
LH, VI, MIX = "LH", "VI", "Mix"
KINDS: Final = ("all", "VD", "VS")
Rows = Sequence[tuple[Answer, Verdict]]


def verdict_of(item: Item, judged: Judged) -> Verdict:
    """Return the verdict on the answer to a question.

    Raises:
        EvaluationError: If there is none.
    """
    if item.key not in judged:
        raise EvaluationError(f"--verdicts has no verdict for {item}; pass the file that has one "
                              "for each answer")  # fmt: skip
    return judged[item.key]


def judged_answer(item: Item, judged: Judged) -> str | None:
    """Return the answer that a verdict implies: the label, its opposite, or None for unclear."""
    check = verdict_of(item, judged).check
    if check == UNCLEAR:
        return None
    return item.label if check == RIGHT else NO if item.label == YES else YES


def board(
    answers: Sequence[Answer],
    read: Callable[[Answer], str | None],
    judged: Judged | None,
) -> dict[str, Any]:
    """Compute the leaderboard's numbers of one arm: for all questions, and for VD and VS.

    Args:
        answers: Answers of the arm.
        read: Parses an answer as "yes", "no" or None; used without verdicts.
        judged: A judge's verdicts; None to use the parser.
    """
    rows = [
        (one, _by_rule(one, read) if judged is None else verdict_of(one.item, judged))
        for one in answers
    ]
    found = {}
    for kind in KINDS:
        of = [row for row in rows if kind == "all" or row[0].item.part.startswith(kind)]
        if of:
            found[kind] = _numbers(of)
    return found


def board_text(found: Mapping[str, Mapping[str, Any]], parser: str) -> str:
    """Return the numbers over all questions as a table, and those of random answers."""
    titles = {
        "qAcc": ("q_acc",), "fAcc": ("f_acc",), "easy aAcc": ("easy",), "hard aAcc": ("hard",),
        "aAcc": ("a_acc",), "mixed figures": ("figures", "mixed"), "yes diff": ("yes_diff",),
        "FP ratio": ("fp_ratio",), LH: ("causes", LH), VI: ("causes", VI), MIX: ("causes", MIX),
    }  # fmt: skip
    whole = {arm: of["all"] for arm, of in found.items()}
    if not any(of["causes"] for of in whole.values()):
        titles = {title: keys for title, keys in titles.items() if "causes" not in keys}
    rows = [[arm, *(_cell(of, keys) for keys in titles.values())] for arm, of in whole.items()]
    chance = next(iter(whole.values()))["chance"]
    by = "a judge's verdicts" if parser == JUDGE else f"parser {parser}"
    return (
        "as on the official leaderboard, in percent:\n\n"
        f"{fit(['arm', *titles], rows, names=list(found))}\n\n"
        f"answers read by {by}; easy, hard: question groups over original, over edited figures\n"
        f"random answers give: aAcc 50, fAcc {chance['f_acc']:.1f}, qAcc {chance['q_acc']:.1f}"
    )


def _cell(of: Mapping[str, Any], keys: Sequence[str]) -> str:
    value: Any = of
    for key in keys:
        value = None if value is None else value.get(key)
    return NONE if value is None else f"{value:.2f}"


def _numbers(rows: Rows) -> dict[str, Any]:
    """Compute the numbers of some rows in percent; the leaderboard's have four decimal places."""
    right = [_right(answer.item, verdict) for answer, verdict in rows]
    figures = _groups(rows, "figure", lambda item: bool(item.image))
    questions = _groups(rows, "question", lambda item: True)
    easy = _groups(rows, "question", lambda item: item.groups["visual_input"] != EDITED)
    hard = _groups(rows, "question", lambda item: item.groups["visual_input"] == EDITED)
    yes = [of == (answer.item.label == "yes") for of, (answer, _) in zip(right, rows, strict=True)]
    labels = [answer.item.label == "yes" for answer, _ in rows]
    wrong = [label for label, of in zip(labels, right, strict=True) if not of]
    return {
        "q_acc": _share(map(all, questions)),
        "f_acc": _share(map(all, figures)),
        "easy": _share(map(all, easy)),
        "hard": _share(map(all, hard)),
        "a_acc": _share(right),
        "figures": {
            "right": _share(map(all, figures)),
            "wrong": _share(not any(of) for of in figures),
            "mixed": _share(any(of) and not all(of) for of in figures),
            "score": sum(sum(of) / len(of) for of in figures) / len(figures) if figures else None,
        },
        "yes_diff": 100 * (sum(yes) / len(yes) - sum(labels) / len(labels)),
        "fp_ratio": 100 * (len(wrong) - sum(wrong)) / len(wrong) if wrong else None,
        "causes": _causes(rows),
        "chance": {
            "f_acc": 100 * _mean(prod([0.5] * len(of)) for of in figures),
            "q_acc": 100 * _mean(prod([0.5] * len(of)) for of in questions),
        },
    }


def _groups(rows: Rows, kind: str, wanted: Callable[[Item], bool]) -> list[list[bool]]:
    found: dict[tuple[str, str], list[bool]] = {}
    for answer, verdict in rows:
        item = answer.item
        if wanted(item):
            found.setdefault((item.unit, item.groups[kind]), []).append(_right(item, verdict))
    return list(found.values())


def _causes(rows: Rows) -> dict[str, float] | None:
    """Compute the shares of language, vision and mixed errors, in percent of all errors.

    None if verdicts don't state for each edited figure whether its answer is the same.
    """
    first = {
        (answer.item.unit, answer.item.groups["question"]): verdict.check
        for answer, verdict in rows
        if answer.item.groups["figure"] == FIRST
    }
    counts: Counter[str] = Counter()
    for answer, verdict in rows:
        key = (answer.item.unit, answer.item.groups["question"])
        if verdict.same is None or key not in first:
            return None
        counts[_cause(answer.item, verdict, first[key])] += 1
    errors = sum(counts[name] for name in (LH, VI, MIX))
    return {name: 100 * counts[name] / errors for name in (LH, VI, MIX)} if errors else None


def _cause(item: Item, verdict: Verdict, first: int) -> str:
    """Return the cause of a wrong answer; empty if the answer is not wrong.

    Args:
        item: The question.
        verdict: Verdict on the answer.
        first: Verdict on the answer to the same question about the first figure of the set.
    """
    check, same, dependent = verdict.check, bool(verdict.same), item.part.startswith("VD")
    if check == RIGHT:
        return ""
    if item.groups["figure"] == FIRST:
        return VI if dependent else LH if check == WRONG else ""
    if dependent:
        return MIX if first == RIGHT and check == WRONG and same else VI
    if first == WRONG:
        return LH if check == WRONG and same else MIX
    edited = item.groups["visual_input"] == EDITED
    return LH if first == RIGHT and check == WRONG and edited and same else VI


def _by_rule(answer: Answer, read: Callable[[Answer], str | None]) -> Verdict:
    said = read(answer)
    return Verdict(UNCLEAR if said is None else int(said == answer.item.label), None)


def _right(item: Item, verdict: Verdict) -> bool:
    """Return whether an answer is right; without a picture, "unclear" is right."""
    return verdict.check == RIGHT or (verdict.check == UNCLEAR and not item.image)


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _share(values: Any) -> float | None:
    found = list(values)
    return round(100 * sum(found) / len(found), 4) if found else None
