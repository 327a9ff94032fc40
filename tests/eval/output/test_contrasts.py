"""When a difference is called significant, where its bar is, and what its sentence claims."""

from __future__ import annotations

from math import nan

import pytest

from eval.output.contrasts import (
    Contrast,
    ContrastGroup,
    contrast_table,
    finding,
    signed,
    summaries,
    terms,
)
from eval.output.page import page_template, text_blocks
from eval.stats.intervals import Interval

BOTH = ("better", "worse")


def contrast(
    value: float, low: float, high: float, p_value: float | None = None, unit: str = "points",
    words: tuple[str, str] = ("lower", "higher"),
) -> Contrast:  # fmt: skip
    found = Interval(value, low, high)
    return Contrast(name="eah", found=found, unit=unit, words=words, p_value=p_value)


@pytest.mark.parametrize(("given", "verdict", "kind"), [
    (contrast(-2, -3, -1), "lower", "differs"),
    (contrast(2, 1, 3), "higher", "differs"),
    (contrast(-2, -3, -1, words=BOTH), "better", "better"),
    (contrast(2, 1, 3, words=BOTH), "worse", "worse"),
    (contrast(2, -1, 3, words=BOTH), "n.s.", ""),
    (contrast(2, 0, 3), "n.s.", ""),  # an end at 0 does not exclude it
    (contrast(-2, -3, 0), "n.s.", ""),
    (contrast(2, 1, 3, 0.049), "higher", "differs"),
    (contrast(2, 1, 3, 0.05), "n.s.", ""),
    (contrast(2, -1, 3, 0.001), "n.s.", ""),
    (contrast(2, 1, 3, nan), "higher", "differs"),  # there is no test
    (contrast(2, nan, nan), "no interval", ""),
    (contrast(2, nan, nan, 0.001), "no interval", ""),
    (contrast(nan, nan, nan), "n/a", ""),
])  # fmt: skip
def test_a_verdict_needs_the_interval_and_the_test(
    given: Contrast, verdict: str, kind: str
) -> None:
    assert (given.verdict, given.kind) == (verdict, kind)
    assert given.is_significant == bool(kind)


def test_bars_of_one_unit_share_a_scale_with_0_in_the_middle() -> None:
    table = contrast_table("Metric", "eah minus baseline", [
        ContrastGroup("a", [contrast(-1, -3, 1)]),
        ContrastGroup("b", [contrast(2, -1, 4)]),
        ContrastGroup("c", [contrast(30, 10, 37, unit="words")]),
        ContrastGroup("none", []),
    ])  # fmt: skip

    rows = [group.rows[0] for group in table.groups]
    assert table.is_flat
    assert table.scales == ["points: -4 to +4", "words: -40 to +40"]
    assert [(row.left, row.point, row.width) for row in rows] == [
        (12.5, 37.5, 50.0), (37.5, 75.0, 62.5), (62.5, 87.5, 33.75),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("largest", "limit"), [(0, 1), (1, 1), (1.2, 1.5), (0.013, 0.015), (9.5, 10), (1490, 1500)]
)
def test_scales_end_at_a_number_with_few_digits(largest: float, limit: float) -> None:
    table = contrast_table("", "", [ContrastGroup("", [contrast(largest, nan, nan)])])

    assert table.groups[0].rows[0].limit == pytest.approx(limit)


def test_a_difference_without_an_interval_has_a_dot_and_without_a_value_nothing() -> None:
    group = ContrastGroup("", [contrast(1, nan, nan), contrast(nan, nan, nan)])

    one, none = contrast_table("", "", [group]).groups[0].rows

    assert (one.point, one.left, one.width, one.ends) == (100, None, None, "")
    assert (none.point, none.left, none.width, none.value) == (None, None, None, "n/a")


def test_what_rounds_to_0_has_no_minus() -> None:
    assert signed(-0.04, 1) == "+0.0"
    assert signed(-0.06, 1) == "-0.1"


def test_a_sentence_claims_only_what_is_significant() -> None:
    texts = [
        finding(one, "eah is better", "No difference can be claimed", "5 against 3", "p = 0.2")
        for one in (contrast(2, 1, 3), contrast(2, -1, 3), contrast(2, nan, nan))
    ]

    assert texts == [
        "eah is better: 5 against 3, difference +2.0 points (95 % interval +1.0 to +3.0; p = 0.2).",
        "No difference can be claimed: 5 against 3, difference +2.0 points (95 % interval -1.0 to "
        "+3.0; p = 0.2).",
        "No difference can be claimed: 5 against 3, difference +2.0 points (no interval; p = 0.2).",
    ]


def test_many_differences_are_one_sentence_for_each_verdict() -> None:
    rows = [contrast(2, -1, 3), contrast(2, 1, 3), contrast(-2, -3, -1, 0.2), contrast(1, 0.5, 2)]

    assert summaries(rows, "accuracy", "baseline") == [
        "Accuracy: higher in 2 of 4 comparisons with baseline: eah (+2.0 points), eah "
        "(+1.0 points).",
        "Accuracy: no difference can be claimed in 2 of 4 comparisons with baseline: eah "
        "(+2.0 points), eah (-2.0 points).",
    ]


def test_only_words_that_occur_are_explained() -> None:
    sure, tested = contrast(2, 1, 3), contrast(2, 1, 3, 0.01)

    assert [name for name, _ in terms([sure])] == ["95 % interval", "Colour and a filled dot"]
    assert ["p, where there is one" in dict(terms([one]))["Colour and a filled dot"]
            for one in (sure, tested)] == [False, True]  # fmt: skip
    assert {"n.s.", "no interval"} <= dict(
        terms([contrast(2, -1, 3), contrast(2, nan, nan)])
    ).keys()


def test_tables_and_lines_of_a_text_are_found() -> None:
    text = "| arm | p |\n| --- | -: |\n| eah |  1 |\n\nnote: a long\n  line\nother"

    assert text_blocks(text) == [(["arm", "p"], [["eah", "1"]]), "note: a long line", "other"]


def test_a_name_may_break_between_its_parts_and_is_escaped() -> None:
    breakable = page_template("page.html").environment.filters["breakable"]

    assert breakable("eah@layers=0,b <i>") == "eah@<wbr>layers=<wbr>0,<wbr>b<wbr> <wbr>&lt;i&gt;"
    assert breakable("x" * 21) == "x" * 20 + "<wbr>x"
