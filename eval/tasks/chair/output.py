"""What is said of scored captions: the table, the output file, and what the numbers depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.files.writing import write_atomically
from eval.output.table import render
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.captions import captions_file, captions_hash
from eval.tasks.chair.compare import Comparison
from eval.tasks.chair.inputs import ChairInputs
from eval.tasks.chair.origin import in_words, published, run_settings
from eval.tasks.chair.scoring import ScoredArm, sentence_row
from eval.tasks.chair.truth import GroundTruth

PROTOCOL: Final = "CHAIR as OPERA's chair.py computes it (COCO 2014 instances and captions)"


def facts_of(
    inputs: ChairInputs, arms: Sequence[ScoredArm], analyzer: Analyzer, truth: GroundTruth
) -> dict[str, str]:
    """Return what the numbers depend on, as texts by name."""
    files = {"captions": inputs.cap_file, "baseline": inputs.baseline}
    run = run_settings(captions_file(inputs.cap_file))
    source = inputs.ground_truth or inputs.coco_path
    image_ids = [caption.image_id for caption in arms[0].captions]
    return {
        "protocol": PROTOCOL,
        "analyzer": analyzer.identity,
        "lexicon_fixes": "on" if inputs.lexicon_fixes else "off",
        "cut": _cuts(inputs),
        **({} if run is None else {"captions_run": in_words(run)}),
        **{name: f"{path}, SHA-256 {captions_hash(path)}"
           for name, path in files.items() if path is not None},
        "ground_truth": f"{source}, SHA-256 of the {len(image_ids)} pictures' objects "
        f"{truth.hash(image_ids)}",
        "ground_truth_analyzer": truth.analyzer or "not stated by the file",
    }  # fmt: skip


def notes(
    arms: Sequence[ScoredArm],
    comparisons: Sequence[Comparison],
    *,
    inputs: ChairInputs,
    analyzer: Analyzer,
    truth: GroundTruth,
) -> list[str]:
    """Return what has to be known beside the table, a line each."""
    lines = [
        f"in brackets: 95 % intervals from {RESAMPLES} bootstrap resamples of the "
        f"{len(arms[0].captions)} picture(s)",
        *(line for comparison in comparisons for line in comparison.sentences()),
    ]
    for arm in arms:
        empty = sum(not caption.text.strip() for caption in arm.captions)
        if empty:
            lines.append(f"note: {empty} captions of {arm.method} are empty and were scored so")
    if truth.analyzer is None:
        lines.append("note: the ground truth does not say how COCO's captions were read")
    elif truth.analyzer != analyzer.identity:
        lines.append(
            f"note: the ground truth was read by {truth.analyzer}, the captions by "
            f"{analyzer.identity}"
        )
    run = run_settings(captions_file(inputs.cap_file))
    return lines if run is None else [*lines, *published(run["model"])]


def result_table(arms: Sequence[ScoredArm]) -> str:
    """Return the result table in percent; Len, in hundreds of words, becomes words thereby."""
    header = ["method", "captions", "CHAIRs (95 %)", "CHAIRi (95 %)", "Recall (95 %)",
              "Len (95 %)"]  # fmt: skip
    rows = [
        [
            arm.method,
            str(len(arm.captions)),
            *(found.percent() for found in arm.intervals().values()),
        ]
        for arm in arms
    ]
    return render(header, rows)


def output(
    arms: Sequence[ScoredArm],
    comparisons: Sequence[Comparison],
    *,
    method: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of the output file.

    `overall_metrics` and `sentences` have the layout of OPERA's `chair.py`, for the scored method;
    the other arms stand in the same layout under `other_arms`.

    Args:
        arms: All arms.
        comparisons: Of arms with the baseline.
        method: Whose results stand at the top.
        facts: What the numbers depend on.
    """
    results = {arm.method: _result(arm) for arm in arms}
    return {
        **facts,
        "bootstrap": {
            "resampled": "pictures",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        **results.pop(method),
        "other_arms": list(results.values()),
        "comparisons": [comparison.as_dict() for comparison in comparisons],
    }


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write the output file, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _result(arm: ScoredArm) -> dict[str, Any]:
    return {
        "method": arm.method,
        "overall_metrics": arm.values(),
        "intervals": {name: found.as_dict() for name, found in arm.intervals().items()},
        "sentences": [sentence_row(caption) for caption in arm.captions],
    }


def _cuts(inputs: ChairInputs) -> str:
    cuts = [] if inputs.max_words is None else [f"after {inputs.max_words} words"]
    if inputs.drop_unfinished:
        cuts.append("last sentence dropped where it has no end")
    return ", ".join(cuts) or "none"
