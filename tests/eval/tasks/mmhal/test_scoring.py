"""Numbers of rated answers against plain arithmetic, and which answers they are of."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from eval.tasks.judge.requests import Outcome
from eval.tasks.mmhal.questions import TYPES, Question, read_questions
from eval.tasks.mmhal.scoring import (
    Rating,
    count_read_differently,
    difference,
    has_rating,
    kinds_of,
    numbers,
    rating_of,
)
from tests.eval.mmhal_inputs import rows, write


@pytest.fixture
def questions(tmp_path: Path) -> list[Question]:
    return read_questions(write(tmp_path / "q.json", rows()))


def outcome(text: str | None, what: str = "answered", **more: Any) -> Outcome:
    return Outcome(1, "k", 0, "1", what, 0.0, "now", text=text, **more)


def rated(values: list[int | None]) -> dict[int, Rating]:
    return {at: Rating("read" if v is not None else "unparsed", v) for at, v in enumerate(values)}


def test_clean_replies_have_the_script_s_numbers(shared: Path, questions: list[Question]) -> None:
    golden = json.loads((shared / "golden/benchmarks/mmhal.json").read_text())["cases"]["clean"]
    ratings = {at: rating_of(outcome(text)) for at, text in enumerate(golden["judge_texts"])}

    found = numbers(questions, ratings)

    assert found is not None
    assert found.count == 96
    assert found.score.value == pytest.approx(sum(golden["scores"]) / 96, abs=1e-12)
    assert found.rate.value == pytest.approx(sum(golden["hallucination"]) / 96, abs=1e-12)
    assert 0 < found.score.low < found.score.value < found.score.high < 6
    printed = golden["printed"][2].rpartition(": ")[2].split(",")
    by_kind = {kind: numbers(of, ratings) for kind, of in kinds_of(questions).items()}
    assert list(by_kind) == list(TYPES)
    assert [str(round(one.score.value, 2)) for one in by_kind.values() if one] == printed


def test_what_has_no_rating_is_in_no_number(questions: list[Question]) -> None:
    values: list[int | None] = [6] * 48 + [None] * 40 + [0] * 8

    found = numbers(questions, rated(values))

    assert found is not None
    assert (found.count, found.score.value) == (56, pytest.approx(6 * 48 / 56))
    assert found.rate.value == pytest.approx(8 / 56)
    assert numbers(questions, rated([None] * 96)) is None
    assert numbers(questions, {}) is None


def test_the_border_of_a_hallucination_is_three(questions: list[Question]) -> None:
    for value, rate in ((2, 1.0), (3, 0.0)):
        found = numbers(questions, rated([value] * 96))
        assert found is not None
        assert found.rate.value == rate


def test_arms_are_compared_where_both_are_rated(questions: list[Question]) -> None:
    drawn = random.Random(3)
    one: list[int | None] = [drawn.choice([None, 0, 2, 4, 6]) for _ in range(96)]
    other: list[int | None] = [drawn.choice([None, 1, 3, 4, 6]) for _ in range(96)]
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]

    found = difference(questions, rated(one), rated(other))

    assert found is not None
    assert found.numbers.count == len(pairs) < 96
    mean = sum(b - a for a, b in pairs) / len(pairs)
    rate = sum((b < 3) - (a < 3) for a, b in pairs) / len(pairs)
    assert found.numbers.score.value == pytest.approx(mean)
    assert found.numbers.rate.value == pytest.approx(rate)
    assert found.numbers.score.low < mean < found.numbers.score.high
    assert found.score_test.pictures == len(pairs)
    test = stats.permutation_test(
        ([b - a for a, b in pairs],), lambda x, axis: x.mean(axis=axis), vectorized=True,
        permutation_type="samples", n_resamples=20_000, rng=1,
    )  # fmt: skip
    assert found.score_test.p_value == pytest.approx(test.pvalue, abs=0.015)
    assert difference(questions, rated([None] * 96), rated(other)) is None


def test_questions_about_one_picture_are_resampled_together(questions: list[Question]) -> None:
    values: list[int | None] = [6 * (at // 2 % 2) for at in range(96)]
    alone = numbers(questions, rated(values))
    pairs = [replace(one, image=f"{one.position // 2}.jpg") for one in questions]
    together = numbers(pairs, rated(values))

    assert alone is not None
    assert together is not None
    width = alone.score.high - alone.score.low
    assert together.score.high - together.score.low == pytest.approx(2**0.5 * width, rel=0.1)


def test_questions_that_name_no_picture_are_resampled_one_by_one(
    questions: list[Question],
) -> None:
    ratings = rated([0, 6] * 48)

    named = numbers(questions, ratings)
    unnamed = numbers([replace(one, image="") for one in questions], ratings)

    assert named is not None
    assert named == unnamed
    assert named.score.low < named.score.value


def test_states_of_replies() -> None:
    assert rating_of(None).state == "open"
    assert rating_of(outcome("Rating: 5")) == Rating("read", 5, "Rating: 5")
    refused = rating_of(outcome("Rating: 5", "refused", reason="no"))
    assert (refused.state, refused.value, refused.reason) == ("refused", None, "no")
    cut = rating_of(outcome("So far", finish_reason="length"))
    assert cut.state == "unparsed"
    assert cut.reason.endswith("; the reply was cut at max_output_tokens")
    assert has_rating(outcome("Rating: 0"))
    assert not has_rating(outcome("Rating: 10"))
    replies = ["Rating: 4", "Rating:4", "Rating: 10", "none", "Rating: 0"]
    assert count_read_differently([rating_of(outcome(text)) for text in replies]) == 3
