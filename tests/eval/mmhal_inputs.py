"""Questions, answers, templates and replies for tests of MMHal-Bench."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.tasks.mmhal.questions import TYPES

COUNT = 96
TEMPLATE = "Rate it. {{braces}}\nlabels [{}] question [{}] reference [{}] response [{}]\nRating?"


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Return the 96 rows of an invented question file in the benchmark's layout."""
    return [
        {
            "question_type": TYPES[at % 8],
            "question_topic": "indoor",
            "image_id": f"{at:08x}",
            "image_src": f"https://farm.example/a/{at:08x}_o.jpg",
            "image_content": ["Cup", f"Thing {at}"],
            "question": f"What is this, number {at}?",
            "gt_answer": f"It is thing {at}.",
            "model_answer": "",
            **changes,
        }
        for at in range(COUNT)
    ]


def answered(name: str, base: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return rows with an arm's answers, of which every text is another one."""
    return [
        {**row, "model_answer": f"{name} says {{}} {{0}} about {row['question']}"}
        for row in base or rows()
    ]


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_answers(folder: Path, *names: str) -> list[Path]:
    return [write(folder / f"answers_{name}.json", answered(name)) for name in names]


def asked_about(text: str) -> tuple[str, int]:
    """Return which arm and which question a request of `answered` texts is about."""
    found = re.search(r"response \[(\w+) says .*number (\d+)\?\]", text)
    assert found is not None
    return found[1], int(found[2])


def replying(texts: Mapping[str, Sequence[str]]) -> Any:
    """Return a stub's answers: by arm, one for each question."""

    def answer(text: str) -> str:
        arm, at = asked_about(text)
        return texts[arm][at]

    return answer
