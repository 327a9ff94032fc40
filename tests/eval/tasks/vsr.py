"""A benchmark that the project does not have: is what is said of a picture true? (VSR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from eval.files.answers import Item
from eval.files.storage import read_json_lines
from eval.tasks.base import TaskProtocol, every_protocol
from eval.tasks.yes_no.parts import PartsTask

LABELS = {0: "no", 1: "yes"}


class Vsr(PartsTask):
    """Spatial relations by kind; `--data-path` has the pictures and vsr.jsonl."""

    name = "vsr"
    title = "VSR"
    scorer = "VSR's paper"
    published = False
    pooled = True
    leave_out = ()
    parts = ("left of", "right of")
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = dict.fromkeys(
        every_protocol(), TaskProtocol(8, parser="word")
    )

    def items(self) -> list[Item]:
        """Return the statements as questions."""
        return self.select_parts([
            Item(at, row["image"], f"Is this true? {row['caption']}", LABELS[row["label"]],
                 row["relation"], {"relation": row["relation"]})
            for at, row in read_json_lines(self.settings.pictures_folder() / "vsr.jsonl")
        ])  # fmt: skip
