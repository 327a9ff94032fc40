"""Read the results that a command wrote where a flag said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.run.outputs import WRITTEN_BY


def result_in(path: Path) -> dict[str, Any]:
    """Return a result without the mark of the command that wrote it."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop(WRITTEN_BY).startswith("EAH ")
    return content
