"""Tiny random checkpoints of vision-language families, with processors made here.

`build("qwen2-vl", folder)` writes what a download of such a model holds: weights, config,
tokenizer, image processor and chat template.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.models.hf import clips, gemma, idefics, llava, others, qformers, qwen
from tests.models.hf.checkpoint import Checkpoint

CHECKPOINTS: Mapping[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        *qwen.CHECKPOINTS,
        *llava.CHECKPOINTS,
        *gemma.CHECKPOINTS,
        *idefics.CHECKPOINTS,
        *others.CHECKPOINTS,
        *clips.CHECKPOINTS,
        *qformers.CHECKPOINTS,
    )
}


def build(name: str, folder: Path) -> Path:
    """Write a tiny checkpoint of a family; return its folder."""
    CHECKPOINTS[name].write(folder)
    return folder


__all__ = ["CHECKPOINTS", "Checkpoint", "build"]
