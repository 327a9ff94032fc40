"""Print published numbers of a model next to measured ones: `configs/paper.yaml` as a table."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from eval.output.table import WIDTH, fit
from models.settings import CONFIGS, read_yaml

METHOD: Final = "method"
SOURCE: Final = "source"
ABSENT: Final = "-"
# Titles of columns that differ from their keys.
TITLES: Final = {"chair_s": "CHAIRs", "chair_i": "CHAIRi", "f1": "F1", "recall": "Recall"}


def published_table(task: str, model: str) -> str:
    """Return the published numbers of a model, with their sources below; empty if there are none.

    A missing number is shown as a dash. Entries keep the order of the file, so losses are shown
    like gains.
    """
    entries: list[dict[str, Any]] = read_yaml(CONFIGS / "paper.yaml").get(task, {}).get(model, [])
    if not entries:
        return ""
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    numbers = [name for name in names if name not in (METHOD, SOURCE)]
    sources = list(dict.fromkeys(entry[SOURCE] for entry in entries))
    header = ["published, not measured here", *(TITLES.get(n, n) for n in numbers), SOURCE]
    rows = [
        [
            entry[METHOD],
            *(str(entry.get(name, ABSENT)) for name in numbers),
            _letter(sources.index(entry[SOURCE])),
        ]
        for entry in entries
    ]
    lines = [textwrap.fill(f"{_letter(at)}: {source}", WIDTH, subsequent_indent="   ")
             for at, source in enumerate(sources)]  # fmt: skip
    return "\n".join([fit(header, rows), *lines])


def _letter(at: int) -> str:
    """Return the letter that marks a source, from its index."""
    return chr(ord("a") + at)
