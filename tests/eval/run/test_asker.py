"""What is recorded of EAH's report for one row of a batch, and seeds by place in a run."""

from __future__ import annotations

import pytest

from eah import LayerReport
from eval.files.answers import Finding
from eval.run.runner import _finding, derive_seed

REPORT = LayerReport(
    layer=2,
    head=(1, None, 0),
    counts=((9, 4, 5), (0, 3, 1), (2, 6, 7)),
    image_tokens=(64, 60, 50),
    saturated=(False, False, True),
)


@pytest.mark.parametrize(
    ("row", "finding"),
    [
        (0, Finding(2, 1, 4, 64, saturated=False)),  # the chosen head's, not the most
        (1, Finding(2, None, 3, 60, saturated=False)),  # without a head, the most
        (2, Finding(2, 0, 2, 50, saturated=True)),
    ],
)
def test_a_row_has_its_own_head_and_counts(row: int, finding: Finding) -> None:
    assert _finding(REPORT, row) == finding


def test_seeds_differ_by_all_that_they_are_of() -> None:
    places = [(0, "eah", 1), (1, "eah", 1), (0, "vcd", 1), (0, "eah", 2), (0, "eah", "1/4")]
    seeds = [derive_seed(*place) for place in places]

    assert len(set(seeds)) == len(places)
    assert seeds == [derive_seed(*place) for place in places]
    assert all(0 <= seed < 2**32 for seed in seeds)
