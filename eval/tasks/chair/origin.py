"""Where captions come from: the run that wrote them, and what was published of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from eval.run.folder import RUN, decoding_in_words
from models.settings import CONFIGS

PAPER_FILE: Final = CONFIGS / "paper.yaml"


def run_settings(captions: Path) -> dict[str, Any] | None:
    """Return the settings of the run that a captions file lies with; None if it lies elsewhere."""
    path = captions.parent / RUN
    if not path.is_file():
        return None
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return settings


def in_words(settings: dict[str, Any]) -> str:
    """Return what decided a run's captions, for people."""
    return (
        f"{settings['model']}, protocol {settings['protocol']}, "
        f"{decoding_in_words(settings['decoding'])}, question {settings['question']!r}"
    )


def published(model: str) -> list[str]:
    """Return the published CHAIR numbers of a model as lines of text, each with its source."""
    content = yaml.safe_load(PAPER_FILE.read_text(encoding="utf-8"))
    return [
        f"published, not measured here: {entry['method']}: CHAIRs {entry['chair_s']}, "
        f"CHAIRi {entry['chair_i']} ({entry['source']})"
        for entry in content["chair"].get(model, [])
    ]
