"""The table of checkpoints on `docs/models.md`: how each family's prompts and positions work."""

from __future__ import annotations

from typing import Final

from tests.models.hf import CHECKPOINTS, Checkpoint

HEADER: Final = """## Whole folders

Families whose folders, with tokenizer, image processor and chat template, are tested: tiny ones
that are made like a download, in `tests/models/hf`. Each answers a padded batch as one by one,
except where the table says otherwise, and EAH finds every image token of one picture, two pictures
and a video.

transformers' video processors need torchvision, and `AutoProcessor` loads them with the rest. Where
the table says "for videos", pictures work without torchvision once the video processor is left out.

| family | prompt | positions | image tokens see | cached prefixes | video | torchvision |
|---|---|---|---|---|---|---|"""


def prefix_note(checkpoint: Checkpoint) -> str:
    """Return whether prefixes can be cached, and why not."""
    return "not measured"


def needs_torchvision(checkpoint: Checkpoint) -> str:
    """Return what a processor needs torchvision for."""
    for packages, answer in (
        (checkpoint.images_need, "needed"),
        (checkpoint.needs, "for videos"),
    ):
        if "torchvision" in packages:
            others = [f", and {package}" for package in packages if package != "torchvision"]
            return "".join([answer, *others])
    return "not needed"


def row(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's line."""
    if checkpoint.template is not None:
        prompt = "chat template"
    elif checkpoint.prefix:
        prompt = f"`{checkpoint.prefix}`, then the text"
    else:
        prompt = "text; the processor adds the picture"
    if checkpoint.varies:
        prompt += f"; batches differ: {checkpoint.varies}"
    sees = checkpoint.attention + (", windows in some layers" if checkpoint.window else "")
    cells = (
        checkpoint.name,
        prompt,
        checkpoint.positions,
        sees,
        prefix_note(checkpoint),
        "no" if checkpoint.video is None else "yes",
        needs_torchvision(checkpoint),
    )
    return f"| {' | '.join(cells)} |"


def lines() -> list[str]:
    """Return the section's lines."""
    return [HEADER, *(row(CHECKPOINTS[name]) for name in sorted(CHECKPOINTS))]
