"""Answers to predictions to metrics, against the golden file and hand-counted cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.tasks.pope.scoring import parse_opera, parse_pope, parse_strict, score, score_answers


@pytest.mark.parametrize(("parser", "rule"), [("opera", "opera_eah_rule"), ("pope", "pope_rule")])
def test_golden_predictions_and_metrics_are_equal(shared: Path, parser: str, rule: str) -> None:
    golden = json.loads((shared / "golden/pope_scoring.json").read_text())
    # The file has labels and predictions as 0 (no) and 1 (yes).
    labels = [{0: "no", 1: "yes"}.get(label, label) for label in golden["labels"]]
    expected = golden[rule]
    parse = {"opera": parse_opera, "pope": parse_pope}[parser]

    predictions = [parse(answer) for answer in golden["answers"]]
    metrics = score_answers(golden["answers"], labels, parser)

    assert [int(p == "yes") for p in predictions] == expected["predictions"]
    assert (metrics.tp, metrics.fp, metrics.tn, metrics.fn) == tuple(
        expected[name] for name in ("TP", "FP", "TN", "FN")
    )
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert getattr(metrics, name) == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize(
    ("answer", "opera", "pope", "strict"),
    [
        ("Yes, there is a dog.", "yes", "yes", "yes"),
        ("No, there is no dog.", "no", "no", "no"),
        ("There isn't a dog.", "no", "yes", None),
        ("It is a car. There is no dog.", "no", "yes", "no"),
        ("NO", "no", "yes", "no"),
        ("Yes, no doubt.", "no", "no", "yes"),
        ("No!", "yes", "yes", "no"),
        ("yes and no", "no", "no", "yes"),
        ("It may be yes or no", "no", "no", None),
        ("", "yes", "yes", None),
        ("cannot tell", "yes", "yes", None),
        ("Unknown", "yes", "yes", None),
    ],
)
def test_each_rule_reads_an_answer_its_own_way(
    answer: str, opera: str, pope: str, strict: str | None
) -> None:
    assert parse_opera(answer) == opera
    assert parse_pope(answer) == pope
    assert parse_strict(answer) == strict


def test_metrics_equal_hand_counts() -> None:
    predictions = ["yes", "yes", "yes", "no", "no", None]
    labels = ["yes", "yes", "no", "no", "yes", "yes"]

    metrics = score(predictions, labels)

    assert (metrics.tp, metrics.fp, metrics.tn, metrics.fn, metrics.unknown) == (2, 1, 1, 1, 1)
    assert metrics.accuracy == 3 / 6
    assert metrics.precision == 2 / 3
    assert metrics.recall == 2 / 4  # the unknown answer to a yes question is not recalled
    assert metrics.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert metrics.yes_ratio == 3 / 6
    assert metrics.unknown_rate == 1 / 6


def test_yes_ratio_is_of_the_predictions_not_of_the_labels() -> None:
    assert score(["yes"] * 4, ["yes", "no", "no", "no"]).yes_ratio == 1.0


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([], []), (["no"], ["no"]), (["no"], ["yes"]), ([None], ["yes"]), (["yes"], ["no"])],
)
def test_zero_denominators_give_zero(predictions: list[str | None], labels: list[str]) -> None:
    metrics = score(predictions, labels)

    assert metrics.f1 == 0.0
    assert all(0.0 <= value <= 1.0 for name, value in metrics.as_dict().items() if "_" in name)
