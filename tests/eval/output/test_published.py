"""Published numbers beside measured ones: all of them, losses too, within a terminal's width."""

from __future__ import annotations

import pytest

from eval.analysis.paper import SECTION
from eval.output.published import published_table
from models.settings import CONFIGS, read_yaml
from tests.eval.tables import table_rows

# Ablations have a layout of their own, see tests/eval/analysis/test_paper.py.
PUBLISHED = {t: of for t, of in read_yaml(CONFIGS / "paper.yaml").items() if t != SECTION}


@pytest.mark.parametrize(
    ("task", "model"), [(task, model) for task, models in PUBLISHED.items() for model in models]
)
def test_published_numbers_of_every_model_fit(task: str, model: str) -> None:
    table = published_table(task, model)

    assert max(map(len, table.splitlines())) <= 100
    words = " ".join(table.split())
    assert all(str(v) in words for entry in PUBLISHED[task][model] for v in entry.values())


def test_nothing_is_published_of_other_models_and_tasks() -> None:
    assert published_table("pope", "tiny-llava") == ""
    assert published_table("mme", "llava-1.5") == ""


def test_a_loss_is_shown_like_a_gain() -> None:
    assert table_rows(published_table("chair", "instructblip")) == [
        ["published, not measured here", "CHAIRs", "CHAIRi", "words", "source"],
        ["baseline greedy", "45.32 +- 2.24", "12.98 +- 0.76", "91.06", "a"],
        ["EAH", "46.40 +- 1.15", "13.13 +- 0.60", "92.33", "a"],
        ["OPERA", "45.76", "13.06", "-", "b"],
        ["VHR", "37.76", "9.75", "-", "b"],
    ]
    assert table_rows(published_table("pope", "llava-next"))[1:] == [
        ["baseline greedy", "88.51", "a"],
        ["EAH", "84.28", "a"],
    ]


def test_a_number_that_an_entry_lacks_is_a_dash() -> None:
    rows = {row[0]: row for row in table_rows(published_table("chair", "llava-1.5"))}

    assert rows["baseline beam"] == ["baseline beam", "53.84", "15.60", "-", "-", "g"]
    assert "g: VHR (arXiv 2412.13949), tables 1 and 2" in published_table("chair", "llava-1.5")


def test_recall_that_a_method_pays_with_is_shown() -> None:
    table = published_table("chair", "llava-1.5")
    header, *rows = table_rows(table)

    assert header[1:5] == ["CHAIRs", "CHAIRi", "Recall", "words"]
    assert ["baseline greedy", "48.2", "14.2", "78.4", "98.5", "e"] in rows
    assert ["HGAI", "24.8", "5.8", "69.3", "92.4", "e"] in rows
    assert "e: captions released with HGAI (arXiv 2411.16724)" in table
