"""The table of benchmarks/README.md is what the files beside it hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median

import pytest

from eval.errors import EvaluationError
from scripts.bench.summary import FOLDER, main, summary, with_table

PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_of_the_files() -> None:
    assert with_table(PAGE, summary(FOLDER)) == PAGE


def test_the_page_names_every_file() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", PAGE))

    assert named == {path.name for path in FOLDER.glob("*.md")} - {"README.md"}
    for path in FOLDER.glob("*.json"):
        assert path.with_suffix(".md").exists(), path


def test_a_row_has_the_medians_of_its_arms_and_their_ratios() -> None:
    rows = json.loads((FOLDER / "h200-model.json").read_text())["rows"]
    of = {
        row["arm"]: row
        for row in rows
        if row["measured"] == "llava-1.5, batch 1" and row["quantity"].startswith("time to first")
    }
    base, eah, released = (of[arm] for arm in ("baseline", "EAH", "released way"))
    ratio = median(e / b for e, b in zip(eah["values"], base["values"], strict=True))
    about = "llava-1.5, batch 1 | time to first token, ms"
    start = f"| [NVIDIA H200](h200-model.md), b848c3c | {about} |"
    row = next(line for line in PAGE.splitlines() if line.startswith(start))

    cells = [cell.strip() for cell in row.split("|")[4:7]]
    assert cells[0] == f"{median(base['values']):.1f}"
    assert cells[1] == f"{median(eah['values']):.1f} ({ratio:.2f})"
    assert cells[2].startswith(f"{median(released['values']):.1f} (")


def test_notes_missing_numbers_and_stopped_benches_are_said(tmp_path: Path) -> None:
    row = {"measured": "x", "quantity": "ms", "note": "", "ratios": [1.0]}
    rows = [
        {**row, "arm": "baseline", "values": [2.0]},
        {**row, "arm": "EAH", "values": [3.0], "ratios": [1.5]},
        {**row, "arm": "released way", "values": [8.0], "ratios": [4.0], "note": "from 1 of 8"},
        {**row, "quantity": "MiB", "arm": "baseline", "values": [None]},
        {**row, "quantity": "MiB", "arm": "EAH", "values": [2.0]},
    ]
    around = {"device": "GPU", "commit": "0123456789"}
    content = {"environment": around, "finished": False, "rows": rows}
    (tmp_path / "gpu.json").write_text(json.dumps(content))

    (found,) = summary(tmp_path).splitlines()[2:]
    cells = "2.00 | 3.00 (1.50) | 8.00 (4.00, from 1 of 8)"
    assert found == f"| [GPU](gpu.md), 0123456, not finished | x | ms | {cells} |"


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"rows": []}')

    with pytest.raises(EvaluationError, match=r"other\.json is not a file of costs\.py --json"):
        summary(tmp_path)


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(EvaluationError, match="lacks"):
        with_table("# Page", "| a |")


def test_the_command_takes_no_words() -> None:
    before = (FOLDER / "README.md").read_bytes()
    for words in (["--x"], ["other.md"]):
        with pytest.raises(SystemExit):
            main(words)
    assert (FOLDER / "README.md").read_bytes() == before
