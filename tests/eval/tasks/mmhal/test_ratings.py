"""How a rating is read from a reply: by our rule, and by the benchmark's script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.tasks.judge.protocols import Unparsed
from eval.tasks.mmhal.ratings import read_as_reference, read_rating
from eval.tasks.mmhal.scoring import reference_numbers


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: 4", 4), ("rating:4", 4), ("RATING : 0", 0), ("**Rating: 6**", 6),
        ("**Rating:** 4", 4), ("- **Rating**: `3`", 3), ("Rating: [2]", 2), ("Rating: (5)", 5),
        ("Rating: 4/6", 4), ("Rating: 4 / 6.", 4), ("Rating: 4 out of 6, so", 4),
        ("Rating: 4 (out of 6)", 4), ("Rating: 2, very informative, with hallucination", 2),
        ("Rating: 3 - not informative", 3), ("Rating: 3\u2014not informative", 3),
        ("So.\n\n## Rating:\n\n4\n", 4), ("Final rating: 1\n2. is a list", 1),
        ("Rating: 4. To be clear, Rating: 4.", 4), ("Rating:\u00a04", 4),
        ("My reason for the rating: it is short. Rating: 5", 5), ("| Rating: 5 | good |", 5),
    ],
)  # fmt: skip
def test_one_rating_is_read(text: str, rating: int) -> None:
    assert read_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"), (" \n", "empty"), ("Score: 6", "no 'rating:'"), ("Rating 4", "no 'rating:'"),
        ("Rating: four", "no 'rating:'"), ("operating: 4", "no 'rating:'"),
        ("Rating: 10", "'10'"), ("Rating: 7", "'7'"), ("Rating: 6.5", "'6.5'"),
        ("Rating: 4.0", "'4.0'"), ("Rating: -1", "'-1'"), ("Rating: +4", "'+4'"),
        ("Rating: .5", "'.5'"), ("Rating: 4/10", "'4/10'"),
        ("Rating: 4 out of 60", "not a whole number"),
        ("Rating: 4%", "'4%'"), ("Rating: 3-4", "'3-4'"), ("Rating: 3  - 4", "not a whole number"),
        ("Rating: 3 or 4", "'3 or 4'"), ("Rating: 3, 4", "'3, 4'"), ("Rating: 4th", "'4th'"),
        ("Rating:\n1. The response is right", "not a whole number"),
        ("Rating: 3 or Rating: 5", "3, 5"),
        ("Rating: 4, no: Rating: 10", "'10'"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_not_read(text: str, reason: str) -> None:
    found = read_rating(text)

    assert isinstance(found, Unparsed)
    assert reason in found.reason


def test_a_reply_of_any_length_is_read_at_once() -> None:
    for text in ("rating:" * 100_000, "rating: " + " " * 900_000, "Rating: 4 " * 90_000,
                 "Rating: 4" + "," * 900_000):  # fmt: skip
        read_rating(text)


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_the_script_s_scores_and_lines_are_its_own(shared: Path, name: str) -> None:
    golden = json.loads((shared / "golden/benchmarks/mmhal.json").read_text())["cases"][name]

    found = reference_numbers(golden["judge_texts"])

    assert found is not None
    assert found.scores == golden["scores"]
    assert found.average == pytest.approx(sum(golden["scores"]) / 96, abs=1e-12)
    assert found.rate == pytest.approx(sum(golden["hallucination"]) / 96, abs=1e-12)
    assert found.lines() == golden["printed"]


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_ours_is_the_script_s_or_refused(shared: Path, name: str) -> None:
    """Of the golden replies, the script's 1 of "Rating: 10" and 6 of "Rating: 6.5" are not ours."""
    golden = json.loads((shared / "golden/benchmarks/mmhal.json").read_text())["cases"][name]
    found = [read_rating(text) for text in golden["judge_texts"]]
    unread = {text for text, one in zip(golden["judge_texts"], found, strict=True)
              if isinstance(one, Unparsed)}  # fmt: skip

    assert all(one == score for one, score in zip(found, golden["scores"], strict=True)
               if isinstance(one, int))  # fmt: skip
    odd = {"Rating: 10", "Rating: 6.5", "Rating: 3 or Rating: 5", "Score: 6", "No score given"}
    assert unread == (odd if name == "odd" else set())


PIECES = st.sampled_from(
    ["rating: ", "Rating:", "RATING: ", "İ", "0", "3", "6", "7", "10", ".5", "\n", " ", "**", "so"]
)


@given(st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20))
def test_the_script_s_rule_against_a_plain_loop(text: str) -> None:
    scores = []
    for s in range(7):
        if "rating: " + str(s) in text.lower():
            scores += [s]

    assert read_as_reference(text) == (scores[0] if len(scores) == 1 else 0)
    found = read_rating(text)
    assert isinstance(found, Unparsed) or found in range(7)
    if isinstance(found, int):  # one that only the other rule sees is a fault of ours
        assert "rating" in text.lower()
        assert str(found) in text


@given(st.lists(st.sampled_from(["Rating: 4", "Rating: 10", "no", "rating: 0"]),
                min_size=96, max_size=96))  # fmt: skip
def test_the_script_s_numbers_against_a_plain_loop(replies: list[str]) -> None:
    known = {"Rating: 4": 4, "Rating: 10": 1, "no": 0, "rating: 0": 0}
    by_type: list[list[int]] = [[] for _ in range(8)]
    total = low = 0
    for i, reply in enumerate(replies):
        by_type[i % 8].append(known[reply])
        total += known[reply]
        low += known[reply] < 3

    found = reference_numbers(replies)

    assert found is not None
    assert (found.average, found.rate) == pytest.approx((total / 96, low / 96), abs=1e-12)
    assert found.by_type == pytest.approx([sum(of) / len(of) for of in by_type], abs=1e-12)
    assert reference_numbers(replies[:-1]) is None
