"""What sinks are counted with, from EAH's settings."""

from __future__ import annotations

import pytest

import eah
from eval.analysis.counting import counting_of
from eval.errors import EvaluationError


@pytest.mark.parametrize("changes", [{"head": 2}, {"min_density": 0.5}, {"receivers": 1}])
def test_what_eah_makes_of_the_densest_head_changes_no_count(changes: dict[str, float]) -> None:
    plain = eah.EAHConfig.preset("scale-free")

    found = counting_of(eah.EAHConfig.preset("scale-free", **changes), [2.0])

    assert found == counting_of(plain, [2.0])
    assert found.configs[0] == plain
    assert (found.thresholds, found.unit) == ((1.25, 2.0), "uniform")


def test_a_threshold_that_is_named_twice_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"--THRES 0\.002, 0\.01, 0\.002 names a threshold"):
        counting_of(eah.EAHConfig(), [0.01, 0.002])
