"""The result table is Markdown that renders, and lines up in a terminal."""

from __future__ import annotations

from eval.output.table import render


def test_numbers_stand_right_and_text_left() -> None:
    table = render(["arm", "n", "share (95 %)"], [["eah", "6", "1.50 (1..2)"], ["b", "12", "0.10"]])

    assert table.splitlines() == [
        "| arm |  n | share (95 %) |",
        "| --- | -: | -----------: |",
        "| eah |  6 |  1.50 (1..2) |",
        "| b   | 12 |         0.10 |",
    ]


def test_a_narrow_column_of_numbers_has_a_rule_that_markdown_knows() -> None:
    assert render(["n"], [["6"]]).splitlines()[1] == "| -: |"
