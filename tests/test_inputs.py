"""The suite notices a test that changes an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.inputs import changes, state_of_inputs


@pytest.mark.parametrize("how", ["content", "same size and time", "gone", "new", "replaced"])
def test_a_changed_input_is_named(tmp_path: Path, how: str) -> None:
    root = tmp_path / "root"
    (root / "configs").mkdir(parents=True)
    path, other = root / "configs/a.yaml", root / "configs/b.yaml"
    path.write_text("a: 1\n")
    state, before = path.stat(), state_of_inputs(root)
    assert list(before) == [str(path)]

    if how == "gone":
        path.unlink()
    elif how == "new":
        other.write_text("a: 1\n")
    elif how == "replaced":
        other.write_text("a: 1\n")
        other.replace(path)
    else:
        path.write_text("a: 2\n" if how == "same size and time" else "a: 10\n")
        if how == "same size and time":
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    changed = changes(before, state_of_inputs(root))
    assert changed == [str(other if how == "new" else path)]
    assert changes(before, before) == []
