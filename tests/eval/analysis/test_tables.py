"""The printed table of layers, and where a picture's view is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import eah
from eval.analysis.tables import layer_table
from eval.analysis.views import view_file
from tests.eval.analysis.planted import head_map


def test_a_row_has_the_means_of_the_first_threshold() -> None:
    found = head_map()

    header, rows = layer_table(found, None)

    assert header == ["layer", "density", "densest head", "its", ">=0.15", ">=0.2"]
    for at, row in enumerate(rows):
        head = int(found.densest[0, at].argmax())
        often, density = found.densest[0, at, head], found.density[0, at]
        assert row[:2] == [str(at), f"{100 * np.mean(density):.1f}"]
        assert row[2:4] == [f"{head} in {100 * often:.0f} %", f"{100 * density[head]:.1f}"]
        assert row[4:] == [f"{100 * share:.1f}" for share in found.dense_share[0, :, at]]
    others = found.densest[1].argmax(axis=1).tolist()
    assert [row[2].split()[0] for row in rows] != [str(head) for head in others]


def test_a_view_is_kept_by_all_that_decides_it() -> None:
    config = eah.EAHConfig()
    given = [Path("run"), "a.jpg", "one?", config, "code"]
    changed = [Path("other"), "b.jpg", "two?", replace(config, threshold=0.01), "new code"]

    every = {view_file(*given)}
    for at, value in enumerate(changed):
        every.add(view_file(*given[:at], value, *given[at + 1 :]))

    assert len(every) == 6
