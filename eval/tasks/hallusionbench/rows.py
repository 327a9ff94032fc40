"""Read the rows of HallusionBench.json, as published and with a judge's verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from eval.errors import EvaluationError
from eval.files.answers import UNIT, Item, Key
from eval.files.rows import read_rows
from eval.files.storage import Record

FILE: Final = "HallusionBench.json"
# Number of questions with a picture, by part.
PARTS: Final = {
    "VD_illusion": 144, "VD_math": 108, "VD_figure": 80, "VD_video": 170, "VD_ocr": 89,
    "VS_chart": 130, "VS_table": 112, "VS_map": 64, "VS_ocr": 54,
}  # fmt: skip
TEXT_ONLY: Final = {"VS_chart": 76, "VS_table": 43, "VS_map": 32, "VS_ocr": 27}
LABELS: Final = {"1": "yes", "0": "no"}
NAMES: Final = ("category", "subcategory", "set_id", "figure_id", "question_id")
CHECK: Final = "gpt_check"  # suffix of the key of a verdict
SAME: Final = "same"


class Verdict(NamedTuple):
    """A judge's verdict on an answer.

    Attributes:
        check: 1 right, 0 wrong, 2 unclear.
        same: Whether the answer is the same as that for figure 0 of its question; None if the judge
            was not asked.
    """

    check: int
    same: bool | None


Judged = Mapping[Key, Verdict]
"""Verdicts by question."""


def read_items(path: Path) -> list[Item]:
    """Read the questions; those without a picture have an empty file name.

    `Item.unit` is the set: its figures are edits of one picture, and each question is asked about
    all of them.

    Raises:
        EvaluationError: If the file is missing or damaged, or has a question twice.
    """
    if not path.is_file():
        raise EvaluationError(
            f"{path} does not exist; pass the folder of {FILE} as --questions "
            "(scripts/data/download.sh --only hallusionbench fetches it)"
        )
    found: dict[Key, Item] = {}
    for where, row in read_rows(path).rows:
        part, row_id, names = _key(path, where, row)
        question, label = row.get("question"), LABELS.get(str(row.get("gt_answer")))
        kind, image = str(row.get("visual_input")), row.get("filename")
        shown = kind in ("1", "2") and isinstance(image, str) and bool(image)
        if not (isinstance(question, str) and question and label and (shown or kind == "0")):
            raise EvaluationError(
                f"{path}, {where} is {str(row)!r:.80}; it needs question, gt_answer (0 or 1), "
                "visual_input (0, 1 or 2) and, unless that is 0, filename: download it again"
            )
        groups = {
            UNIT: "_".join(names[:3]), "figure": names[3], "question": names[4],
            "visual_input": kind,
        }  # fmt: skip
        file = str(image).removeprefix("./") if shown else ""
        if (part, row_id) in found:
            raise EvaluationError(
                f"{path}, {where} repeats {part} {row_id}, but each question must be unique; "
                "download it again"
            )
        found[part, row_id] = Item(row_id, file, question, label, part, groups)
    return list(found.values())


def read_verdicts(path: Path) -> Judged:
    """Read a judge's verdicts, which `evaluation.py` writes into the rows of the answers.

    Raises:
        EvaluationError: If a row has no verdict, or several keys could be the verdict.
    """
    found: dict[Key, Verdict] = {}
    for where, row in read_rows(path).rows:
        part, row_id, _ = _key(path, where, row)
        keys = [key for key in row if key.endswith(CHECK)]
        value = str(row[keys[0]]) if len(keys) == 1 else None
        if value not in ("0", "1", "2"):
            raise EvaluationError(
                f"{path}, {where} has the verdict {value!r:.60}; it needs one key that ends in "
                f"{CHECK!r}, with 0 (wrong), 1 (right) or 2 (unclear)"
            )
        same = str(row[SAME]) == "1" if SAME in row else None
        if (part, row_id) in found:
            raise EvaluationError(
                f"{path}, {where} has a second verdict on {part} {row_id}; remove one of them"
            )
        found[part, row_id] = Verdict(int(value), same)
    return found


def _key(path: Path, where: str, row: Record) -> tuple[str, str, list[str]]:
    """Return the part, the id, and the names that they are made from."""
    names = [str(row.get(name, "")) for name in NAMES]
    part = f"{names[0]}_{names[1]}"
    if part not in PARTS or not all(names):
        raise EvaluationError(
            f"{path}, {where} is {str(row)!r:.80}; it needs HallusionBench's {', '.join(NAMES)}"
        )
    return part, "_".join(names[2:]), names
