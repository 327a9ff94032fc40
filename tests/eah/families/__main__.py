"""Write `docs/models.md`: which vision-language families of transformers EAH works with.

    python -m tests.eah.families            # writes the table
    python -m tests.eah.families --check    # only says whether it is up to date

Each row is measured: a tiny model of the family is built and asked its prompts with EAH enabled.
Families whose processor needs torchvision are measured where it is installed, and keep their lines
elsewhere.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel, __version__
from transformers.utils import logging

import eah
from eval.files.writing import write_atomically
from tests.eah.families import FAMILIES, SKIPPED, Family
from tests.eah.families.situations import SITUATIONS
from tests.models.hf import table as folders

TABLE_FILE: Final = Path(__file__).resolve().parents[3] / "docs" / "models.md"
INTRODUCTION: Final = """# Models

To evaluate any vision-language model that transformers loads:
`python eval/pope_eval.py --model hf --checkpoint FOLDER_OR_ID --data-path data/COCO/val2014`. In
Python, `vlm = models.load("hf", checkpoint="FOLDER_OR_ID")` loads the model with its processor, and
`vlm.generate("cat.jpg", "Is there a cat?")` within
`with eah.enabled(vlm, eah.EAHConfig.preset("scale-free")):` answers with EAH. A model that you
loaded yourself needs `eah.enable(model)` only; [any-model.md](any-model.md) has the details.

Families of vision-language models in transformers {version}, with the sdpa kernel. Each row was
measured on a tiny model with random weights: `tests/eah/test_families.py` compares the sinks, the
densest head and the logits with plain eager attention, for one picture, two pictures, a padded
batch and, where there are placeholders for it, a video. Layer numbers are those of the tiny model.
`python -m tests.eah.families` wrote this page.

- "works": on every prompt EAH finds the image tokens by itself, from the name in the third column.
- "refused": `eah.enable`, or the first forward pass, raises the error in the third column.
"""
HEADER: Final = "| family | EAH | image tokens, or why not | layers |\n|---|---|---|---|"
SITUATION_HEADER: Final = """## Situations

What EAH does outside of a plain causal prefill in one thread. "works": the same as plain eager
attention gives, by loops; "refused": one sentence, before the model runs.

| situation | EAH | that is |
|---|---|---|"""
SKIPPED_HEADER: Final = "Not measured:\n\n| family | why |\n|---|---|"
# Sinks are counted but no column is one: the table asks only whether image tokens are found.
NO_SINKS: Final = 0.999


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        family: Name of the family, and of the case.
        verdict: "works", "refused" or "fails".
        reason: Where the image tokens come from, or the error.
        layers: What is special about the layers.
    """

    family: str
    verdict: str
    reason: str
    layers: str


def row_of(family: Family) -> Row:
    """Return a family's line, from what a tiny model of it does."""
    model = family.build("sdpa")
    try:
        missed = [prompt for prompt in family.prompts if not finds_images(model, family, prompt)]
        if not family.prompts:
            eah.enable(model, eah.EAHConfig(layers=family.layers))
            eah.disable(model)
    except eah.UnsupportedModelError as error:
        return Row(family.name, "refused", str(error), family.note)
    except (eah.EAHError, AttributeError) as error:
        return Row(family.name, "fails", str(error), family.note)
    if family.refused is not None:
        return Row(family.name, "fails", f"{family.refused} is not refused", family.note)
    if missed:
        reason = f"image tokens not found: {', '.join(missed)}"
        return Row(family.name, "fails", reason, family.note)
    return Row(family.name, "works", family.source, family.note)


@torch.no_grad()
def finds_images(model: PreTrainedModel, family: Family, prompt: str) -> bool:
    """Tell whether EAH finds all image tokens of a prompt in all layers with softmax attention."""
    inputs = family.inputs(prompt)
    image = family.image_columns(inputs)
    wanted = tuple(image.sum(dim=1).tolist())
    config = eah.EAHConfig(layers=family.layers, threshold=NO_SINKS)
    with eah.enabled(model, config) as handle:
        model(**inputs, use_cache=False)
        reports = handle.report()
    found = [report.layer for report in reports if report.image_tokens == wanted]
    return found == list(family.layers)


def table() -> str:
    """Return the text of the page."""
    rows = sorted((row_of(family) for family in FAMILIES), key=lambda row: row.family)
    lines = [
        f"| {row.family} | {row.verdict} | {row.reason} | {row.layers} |".replace("  |", " |")
        for row in rows
    ]
    counts = {verdict: 0 for verdict in ("works", "refused", "fails")}
    for row in rows:
        counts[row.verdict.split()[0]] += 1
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    introduction = INTRODUCTION.format(version=__version__)
    skipped = [f"| {name} | {reason} |" for name, reason in SKIPPED.items()]
    situations = [f"| {s.name} | {s.verdict} | {s.meaning} |" for s in SITUATIONS]
    parts = [introduction, f"{summary}.\n", HEADER, *lines, "", SKIPPED_HEADER, *skipped, ""]
    parts += [*folders.lines(TABLE_FILE.read_text(encoding="utf-8")), ""]
    parts += [SITUATION_HEADER, *situations]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description="Write docs/models.md.")
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    made = table()
    if arguments.check:
        return int(made != TABLE_FILE.read_text(encoding="utf-8"))
    write_atomically(TABLE_FILE, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
