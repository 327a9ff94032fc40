"""Write the tables of `docs/models.md`: which families of transformers EAH works with.

    python -m tests.eah.families            # replaces the part between the two marker comments
    python -m tests.eah.families --check    # status 1 if that part is out of date; writes nothing

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
BEGIN: Final = "<!-- table: python -m tests.eah.families -->"
END: Final = "<!-- end of the table -->"
INTRODUCTION: Final = """## Families of transformers

Families of vision-language models in transformers {version}, with the sdpa kernel. Each row was
measured on a tiny model with random weights: `tests/eah/test_families.py` compares the sinks, the
densest head and the logits with plain eager attention, for one picture, two pictures, a padded
batch and, where there are placeholders for it, a video. Layer numbers are those of the tiny model.

- "works": EAH locates the image tokens of every prompt, from the name in the third column.
- "refused": `eah.enable`, or the first forward pass, raises the error in the third column.
"""
HEADER: Final = "| family | EAH | image tokens, or why not | layers |\n|---|---|---|---|"
SITUATION_HEADER: Final = """## Situations

What EAH does outside of a plain causal prefill in one thread. "works": tested to equal plain eager
attention, computed by loops; "refused": an error before the model runs.

| situation | EAH | details |
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


def tables(page: str) -> str:
    """Return the generated part of the page.

    Args:
        page: The page as it is: families whose packages are not installed keep their lines.
    """
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
    parts += [*folders.lines(page), ""]
    parts += [SITUATION_HEADER, *situations]
    return "\n".join(parts)


def with_tables(page: str, made: str) -> str:
    """Return a page with new tables between its two marker comments.

    Raises:
        ValueError: If the page lacks a marker, or has one twice.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"{TABLE_FILE.name} needs {BEGIN}, then {END}, each once; restore them")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def main() -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/models.md.")
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    page = TABLE_FILE.read_text(encoding="utf-8")
    made = with_tables(page, tables(page))
    if arguments.check:
        return int(made != page)
    write_atomically(TABLE_FILE, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
