"""Tables are Markdown that renders, line up in a terminal and fit into it."""

from __future__ import annotations

import pytest

from eval.output.table import fit, render


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


HEADER = ["method", "captions", "CHAIRs (95 %)", "CHAIRi (95 %)", "Recall (95 %)", "Len (95 %)"]
LONG = "vcd+eah@alpha=0.5,layers=2,sink_threshold=0.0008,receivers=8"


def row(name: str, cell: str = "45.0 (40.8..49.4)") -> list[str]:
    return [name, "500", *[cell] * 4]


def width(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_a_table_that_fits_is_left_as_it_is() -> None:
    rows = [row("baseline"), row("eah")]

    assert fit(HEADER, rows, 110) == render(HEADER, rows)


def test_long_names_become_numbers_with_a_legend() -> None:
    assert len(LONG) == 60

    table = fit(HEADER, [row("baseline"), row(LONG), row(LONG)])

    assert width(table) <= 100
    lines = table.splitlines()
    assert [line[:5] for line in lines[2:5]] == ["| [1]", "| [2]", "| [2]"]
    assert lines[5:] == ["", "[1] baseline", f"[2] {LONG}"]


def test_numbers_can_be_those_of_another_table() -> None:
    table = fit(HEADER, [row(LONG)], names=["baseline", LONG])

    assert table.splitlines()[2].startswith("| [2] ")
    assert table.endswith(f"\n\n[2] {LONG}")
    assert "baseline" not in table


def test_columns_that_do_not_fit_follow_below() -> None:
    wide = row(LONG, "100.0 (100.0..100.0)")

    first, second, legend = fit(HEADER, [wide, wide]).split("\n\n")

    assert max(width(first), width(second)) <= 100
    assert legend == f"[1] {LONG}"
    assert first.splitlines()[0].split("|")[1:-1][-1].strip() == "Recall (95 %)"
    assert second == render(["#", "Len (95 %)"], [["[1]", "100.0 (100.0..100.0)"]] * 2)


def test_only_names_that_are_too_long_become_numbers() -> None:
    table = fit(HEADER, [row("baseline"), row(LONG)], 106)

    assert width(table) <= 106
    assert [line[:10] for line in table.splitlines()[2:4]] == ["| baseline", "| [2]     "]
    assert table.endswith(f"\n\n[2] {LONG}")


def test_the_limit_itself_fits() -> None:
    header, rows = ["n", "a", "b"], [["x", "1" * 30, "2" * 30]]
    whole = render(header, rows)

    assert fit(header, rows, width(whole)) == whole
    assert len(fit(header, rows, width(whole) - 1).split("\n\n")) == 2
    two, one = render(header, rows), render(["n", "c"], [["x", "3"]])
    assert fit([*header, "c"], [[*rows[0], "3"]], width(whole)) == f"{two}\n\n{one}"


def test_short_names_stay_where_columns_are_too_many() -> None:
    table = fit(["n", "a", "b"], [["x", "1" * 30, "2" * 30]], 40)

    assert [one.splitlines()[2] for one in table.split("\n\n")] == [
        f"| x  | {'1' * 30} |", f"| x  | {'2' * 30} |",
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [5, 20])
def test_one_column_is_never_split(limit: int) -> None:
    assert fit(["n", "a"], [["x", "1" * 30]], limit) == render(["n", "a"], [["x", "1" * 30]])
    assert fit(["n"], [["x" * 30]], limit).endswith(f"[1] {'x' * 30}")
