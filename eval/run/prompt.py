"""What is asked: one question about one picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Key = tuple[Any, ...]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question about one picture; `row` is what is recorded with the answer."""

    key: Key
    image: str
    question: str
    row: Row = field(default_factory=dict)
