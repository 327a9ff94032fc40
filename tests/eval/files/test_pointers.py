"""Git LFS pointers in the place of files that users pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files import coco, rows, storage
from eval.tasks.chair import truth
from eval.tasks.chair.image_lists import read_ids


@pytest.mark.parametrize(
    "read", [coco.read_instances, rows.read_rows, storage.read_json_lines, truth.read, read_ids]
)
def test_a_pointer_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "x.json"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")

    with pytest.raises(EvaluationError, match=r"x\.json is a Git LFS pointer, .*`git lfs pull`"):
        read(path)
