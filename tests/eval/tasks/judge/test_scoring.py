"""Means, wins and flips against numbers worked out by hand, and a library's sign test."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from eval.tasks.judge.protocols import Grades
from eval.tasks.judge.scoring import JudgedPicture, Judgement, results, states


def read(order: str, one: float, two: float) -> Judgement:
    return Judgement(order, "read", Grades((one, two), (two, one)), "", "")


def unread(order: str, state: str = "unparsed") -> Judgement:
    return Judgement(order, state, None, "text", "reason")


# Grades of answers 1 and 2, first order and second.
PICTURES = [
    JudgedPicture(1, (read("12", 5, 7), read("21", 6, 8))),  # 5.5 : 7.5, answer 2 both times
    JudgedPicture(2, (read("12", 9, 8), read("21", 7, 8))),  # 8 : 8, reversed
    JudgedPicture(3, (read("12", 4, 4), read("21", 4, 6))),  # 4 : 5, a tie becomes a win
    JudgedPicture(4, (read("12", 9, 2), read("21", 9, 3))),  # 9 : 2.5, answer 1 both times
    JudgedPicture(5, (read("12", 1, 10), unread("21"))),  # does not count
    JudgedPicture(6, (unread("12", "refused"), unread("21", "open"))),
]


def test_means_wins_and_flips() -> None:
    found = results(PICTURES)["accuracy"]

    assert found.first.value == pytest.approx((5.5 + 8 + 4 + 9) / 4)
    assert found.second.value == pytest.approx((7.5 + 8 + 5 + 2.5) / 4)
    assert found.difference.value == pytest.approx((2 + 0 + 1 - 6.5) / 4)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.flips is not None
    assert (found.flips.pictures, found.flips.changed, found.flips.reversed) == (4, 2, 1)
    assert found.flips.rate == 0.5


def test_the_other_criterion_mirrors_it() -> None:
    one, other = results(PICTURES)["accuracy"], results(PICTURES)["detailedness"]

    assert other.difference.value == pytest.approx(-one.difference.value)
    assert (other.wins, other.losses) == (one.losses, one.wins)


def test_the_sign_test_leaves_ties_out() -> None:
    pictures = [JudgedPicture(at, (read("12", 5, 6 if at < 9 else 4),)) for at in range(12)]
    pictures += [JudgedPicture(at, (read("12", 5, 5),)) for at in range(12, 40)]

    found = results(pictures)["accuracy"]

    assert (found.wins, found.ties, found.losses) == (9, 28, 3)
    assert found.sign_test.p_value == pytest.approx(binomtest(9, 12).pvalue)
    assert found.flips is None


def test_the_interval_is_paired_by_picture() -> None:
    """Answer 2 is better by one or two everywhere: sure, however different the pictures are."""
    pictures = [JudgedPicture(at, (read("12", at, at + 1 + at % 2),)) for at in range(1, 9)]

    found = results(pictures)["accuracy"]

    assert 1.0 <= found.difference.low < found.difference.high <= 2.0
    assert found.first.high - found.first.low > 1


def test_nothing_readable_has_no_averages() -> None:
    assert results(PICTURES[4:]) == {}
    assert states(PICTURES) == {"read": 9, "unparsed": 1, "refused": 1, "rejected": 0, "open": 1}
