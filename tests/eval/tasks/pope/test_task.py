"""POPE as a task: which questions, under which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.tasks.pope.questions import POPE_TYPES, dump_questions
from eval.tasks.pope.task import Pope, PopeSettings

ITEMS = [Item(i, "a.jpg", f"Is there a thing{i} in the image?", "yes", "popular") for i in (1, 2)]


def task(path: Path, *types: str, limit: int | None = None) -> Pope:
    return Pope(PopeSettings(pope_type=types, pope_path=path, limit=limit))


@pytest.mark.parametrize("name", ["mine.json", "coco_pope_popular.json"])
def test_one_file_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(dump_questions(ITEMS))

    assert task(tmp_path / name, "popular").items() == ITEMS
    assert task(tmp_path / name, "popular", limit=1).items() == ITEMS[:1]


def test_one_file_can_not_be_of_two_types(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(dump_questions(ITEMS))

    with pytest.raises(
        EvaluationError, match="is a single file; pass a single --pope-type with it"
    ):
        task(tmp_path / "mine.json", "popular", "random").items()


@pytest.mark.parametrize(
    ("types", "label"),
    [(("random",), "random"), (("popular", "random"), "popular+random"), (("all",), "all"),
     (POPE_TYPES, "all")],
)  # fmt: skip
def test_a_folder_is_named_after_the_types(
    tmp_path: Path, types: tuple[str, ...], label: str
) -> None:
    assert task(tmp_path, *types).label([]) == label
