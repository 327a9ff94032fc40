"""Answers to predictions to metrics, against the golden file and hand-counted cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.tasks.base import TaskProtocol
from eval.tasks.pope.task import Pope, PopeSettings
from eval.tasks.yes_no.parsers import PARSERS
from eval.tasks.yes_no.task import COUNTS, YesNoTask

OPERA = TaskProtocol(10, parser="opera")
NAMES = ("accuracy", "precision", "recall", "f1", "yes_ratio", "unknown_rate")


def task(parser: str | None = None) -> YesNoTask:
    return Pope(PopeSettings(parser=parser), OPERA)


def answers_of(texts: Sequence[str], labels: Sequence[str], part: str = "random") -> list[Answer]:
    return [
        Answer(Item(number, "a.jpg", f"question {number}", label, part), text)
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def scored(texts: Sequence[str], labels: Sequence[str], parser: str) -> dict[str, Any]:
    """Return counts and metrics by name."""
    one = task(parser)
    counts = one.counts(answers_of(texts, labels))
    numbers = one.numbers(np.array(counts, dtype=np.float64)).tolist()
    named = zip((metric.name for metric in one.metrics), numbers, strict=True)
    return {**dict(zip(COUNTS, counts, strict=True)), **dict(named)}


@pytest.mark.parametrize(("parser", "rule"), [("opera", "opera_eah_rule"), ("pope", "pope_rule")])
def test_golden_predictions_and_metrics_are_equal(shared: Path, parser: str, rule: str) -> None:
    golden = json.loads((shared / "golden/pope_scoring.json").read_text())
    # The file has labels and predictions as 0 (no) and 1 (yes).
    labels = [{0: "no", 1: "yes"}.get(label, label) for label in golden["labels"]]
    expected = golden[rule]

    predictions = [PARSERS[parser](answer) for answer in golden["answers"]]
    found = scored(golden["answers"], labels, parser)

    assert [int(p == "yes") for p in predictions] == expected["predictions"]
    for name in ("TP", "FP", "TN", "FN"):
        assert found[name.lower()] == expected[name]
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12)


RULES = ("opera", "pope", "strict", "exact", "first-4", "substring", "word")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes, there is a dog.", ("yes", "yes", "yes", None, "yes", "yes", "yes")),
        ("No, there is no dog.", ("no", "no", "no", None, "no", "no", "no")),
        ("There isn't a dog.", ("no", "yes", None, None, None, None, None)),
        ("It is a car. There is no dog.", ("no", "yes", "no", None, None, "no", "no")),
        ("NO", ("no", "yes", "no", None, "no", "no", "no")),
        ("No", ("no", "no", "no", "no", "no", "no", "no")),
        ("Yes", ("yes", "yes", "yes", "yes", "yes", "yes", "yes")),
        ("Yes.", ("yes", "yes", "yes", None, "yes", "yes", "yes")),
        (" Yes", ("yes", "yes", "yes", None, "yes", "yes", "yes")),
        ("Yes, no doubt.", ("no", "no", "yes", None, "yes", "yes", None)),
        ("No!", ("yes", "yes", "no", None, "no", "no", "no")),
        ("yes and no", ("no", "no", "yes", None, "yes", "yes", None)),
        ("It may be yes or no", ("no", "no", None, None, None, "yes", None)),
        ("", ("yes", "yes", None, None, None, None, None)),
        ("cannot tell", ("yes", "yes", None, None, None, "no", None)),
        ("Unknown", ("yes", "yes", None, None, None, "no", None)),
        ("Eyes", ("yes", "yes", None, None, "yes", "yes", None)),
        ("A. No", ("no", "yes", "no", None, None, "no", "no")),
        # Punctuation splits words, except where a space is beside it somewhere.
        ("yes-sir", ("yes", "yes", "yes", None, "yes", "yes", "yes")),
        ("yes-sir - really", ("yes", "yes", "yes", None, "yes", "yes", None)),
        ("no,1,2", ("yes", "yes", "no", None, "no", "no", None)),
        (". " * 40 + "no.", ("no", "yes", "no", None, None, "no", None)),
    ],
)  # fmt: skip
def test_each_rule_reads_an_answer_its_own_way(
    answer: str, expected: tuple[str | None, ...]
) -> None:
    assert list(PARSERS) == list(RULES)
    assert tuple(parse(answer) for parse in PARSERS.values()) == expected


def test_metrics_equal_hand_counts() -> None:
    texts = ["yes", "yes", "yes", "no", "no", "cannot tell"]
    labels = ["yes", "yes", "no", "no", "yes", "yes"]

    found = scored(texts, labels, "strict")

    assert {name: found[name] for name in COUNTS} == {
        "total": 6, "tp": 2, "fp": 1, "tn": 1, "fn": 1, "unknown": 1, "positives": 4,
        "asked": 6, "yes": 3,
    }  # fmt: skip
    assert found["accuracy"] == 3 / 6
    assert found["precision"] == 2 / 3
    assert found["recall"] == 2 / 4  # the unknown answer to a yes question is not recalled
    assert found["f1"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert found["yes_ratio"] == 3 / 6
    assert found["unknown_rate"] == 1 / 6


def test_one_parser_leaves_unknown_answers_out_of_every_denominator() -> None:
    """As RePOPE's scorer does; their share is still that of all answers."""
    found = scored(["yes", "no", "?", "?"], ["yes", "yes", "yes", "no"], "substring")

    assert (found["total"], found["positives"], found["asked"], found["unknown"]) == (2, 2, 4, 2)
    assert found["accuracy"] == found["recall"] == found["yes_ratio"] == 1 / 2
    assert found["unknown_rate"] == 2 / 4


def test_yes_ratio_is_of_the_predictions_not_of_the_labels() -> None:
    assert scored(["yes"] * 4, ["yes", "no", "no", "no"], "opera")["yes_ratio"] == 1.0


@pytest.mark.parametrize(
    ("texts", "labels", "expected"),
    [
        ([], [], dict.fromkeys(NAMES, nan)),
        (["no"], ["no"], {"accuracy": 1, "precision": nan, "recall": nan, "f1": nan}),
        (["no"], ["yes"], {"accuracy": 0, "precision": nan, "recall": 0, "f1": 0}),
        (["?"], ["yes"], {"precision": nan, "recall": 0, "f1": 0, "unknown_rate": 1}),
        (["yes"], ["no"], {"precision": 0, "recall": nan, "f1": 0, "yes_ratio": 1}),
    ],
)
def test_what_is_nothing_of_nothing_is_not_a_number(
    texts: list[str], labels: list[str], expected: dict[str, float]
) -> None:
    found = scored(texts, labels, "strict")

    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_the_parser_is_the_settings_else_the_protocols() -> None:
    said_later = answers_of(["It is a car. There is no dog."], ["no"])[0]
    official = Pope(PopeSettings(), Pope.protocol_of("official", "llava-1.5"))

    assert (task().parser, task().right(said_later)) == ("opera", True)
    assert (official.parser, official.right(said_later)) == ("pope", False)
    assert task("strict").facts() == {"parser": "strict"}


def test_an_unknown_answer_is_wrong_whatever_the_label() -> None:
    first, second = answers_of(["cannot tell"] * 2, ["yes", "no"])

    assert not task("strict").right(first)
    assert not task("strict").right(second)


def test_every_parser_is_reported_by_arm_and_part() -> None:
    arms = {
        "baseline": [*answers_of(["Yes", "No!"], ["yes", "no"]), *answers_of(["no"], ["no"], "x")],
        "eah": [*answers_of(["No", "no"], ["yes", "no"]), *answers_of(["yes"], ["no"], "x")],
    }

    found = task("strict").extra_metrics(arms)["parsers"]

    accuracy = {
        parser: {(a, p): one["accuracy"] for a, of in arms.items() for p, one in of.items()}
        for parser, arms in found.items()
    }
    strict = {("baseline", "random"): 1.0, ("baseline", "x"): 1.0,
              ("eah", "random"): 0.5, ("eah", "x"): 0.0}  # fmt: skip
    assert accuracy == {
        "opera": {**strict, ("baseline", "random"): 0.5},
        "pope": {**strict, ("baseline", "random"): 0.5},
        "strict": strict,
        "exact": {("baseline", "random"): 0.5, ("baseline", "x"): 0.0,
                  ("eah", "random"): 0.0, ("eah", "x"): 0.0},
        "first-4": strict,
        "substring": strict,
        "word": strict,
    }  # fmt: skip
    assert found["pope"]["baseline"]["random"].items() >= {"total": 2, "tp": 1, "fp": 1}.items()


def test_the_old_name_of_a_parser_is_taken() -> None:
    assert PopeSettings(parser="mme") == PopeSettings(parser="first-4")


def test_an_unknown_parser_is_refused() -> None:
    with pytest.raises(EvaluationError, match="parser 'oprea' is unknown: did you mean 'opera'"):
        PopeSettings(parser="oprea")
