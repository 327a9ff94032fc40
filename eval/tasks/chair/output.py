"""Score captions, and present the result as text and as the output file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.files.answers import BASELINE, Caption
from eval.output.published import published_table
from eval.output.table import WIDTH, fit
from eval.stats.intervals import CONFIDENCE, RESAMPLES, SEED, few_pictures_note
from eval.tasks.chair.analyzers import Analyzer, choose
from eval.tasks.chair.captions import captions_hash, origin_of
from eval.tasks.chair.compare import DIFFERENCES, Comparison, as_dicts, compare, with_holm
from eval.tasks.chair.scoring import (
    METRICS,
    ScoredArm,
    ScoredCaption,
    ScoreSettings,
    in_json,
    score,
)
from eval.tasks.chair.truth import GroundTruth

PROTOCOL: Final = "CHAIR as OPERA's chair.py computes it (COCO 2014 instances and captions)"


@dataclass(frozen=True, slots=True)
class ChairResult:
    """Scored captions.

    Attributes:
        arms: All arms, the baseline first.
        comparisons: Of each other arm with the baseline, if there is one.
        facts: What the numbers depend on, as texts by name.
        notes: Notes that explain the numbers, one line each.
        published: Table of published numbers of the model; empty if there are none.
    """

    arms: tuple[ScoredArm, ...]
    comparisons: tuple[Comparison, ...]
    facts: Mapping[str, str]
    notes: tuple[str, ...]
    published: str = ""

    def text(self) -> str:
        """Return the result for a terminal, in tables of at most 100 columns."""
        intervals = (
            f"95 %: intervals from {RESAMPLES} bootstrap resamples of the "
            f"{len(self.arms[0].captions)} picture(s); CHAIRs, CHAIRi, Recall: in percent; Len: "
            "mean number of words and punctuation marks"
        )
        lines = map(_wrap, [intervals, *self.sentences(), *self.notes])
        head = _wrap(f"{self.facts['protocol']}; analyzer {self.facts['analyzer']}")
        blocks = [head, self._metrics(), *self._differences(), "\n".join(lines), self.published]
        return "\n\n".join(block for block in blocks if block)

    def sentences(self) -> list[str]:
        """Say which gains are significant and not explained by length, one line per gaining arm."""
        found = [comparison.length_sentence() for comparison in self.comparisons]
        return [sentence for sentence in found if sentence is not None]

    def _differences(self) -> list[str]:
        """Return the table of comparisons with its explanation; empty without comparisons."""
        if not self.comparisons:
            return []
        baseline = self.comparisons[0].baseline
        explanation = (
            f"method - {baseline}, in percent (Len: in words and punctuation marks); gained, lost: "
            "captions that only the method, or only the other, keeps free of hallucinated objects"
        )
        if (arms := len(self.comparisons)) > 1:
            explanation += f"; McNemar's p is Holm-adjusted for {arms} comparisons"
        rows = [row for comparison in self.comparisons for row in comparison.rows()]
        table = fit(DIFFERENCES, rows, names=[arm.method for arm in self.arms])
        return [_wrap(explanation), table]

    def _metrics(self) -> str:
        """Return the table of metrics in percent.

        Len is stored in hundreds of words, so that percent gives words. As in OPERA, punctuation
        marks count as words.
        """
        header = ["method", *(f"{name} (95 %)" for name in METRICS)]
        rows = [[arm.method, *(found.percent() for found in arm.intervals.values())]
                for arm in self.arms]  # fmt: skip
        counts = [len(arm.captions) for arm in self.arms]
        if len(set(counts)) > 1:
            header.append("captions")
            rows = [[*row, str(count)] for row, count in zip(rows, counts, strict=True)]
        return fit(header, rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the output file.

        `overall_metrics` and `sentences` have the layout of OPERA's `chair.py`, for the first arm
        that is not the baseline. The other arms have the same layout under `other_arms`.
        """
        top = self.comparisons[0].method if self.comparisons else self.arms[0].method
        results = {arm.method: _result(arm) for arm in self.arms}
        return {
            **self.facts,
            "bootstrap": {
                "resampled": "pictures",
                "confidence": CONFIDENCE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            **results.pop(top),
            "other_arms": list(results.values()),
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
        }


def score_captions(
    captions: Mapping[str, Sequence[Caption]],
    settings: ScoreSettings,
    *,
    source: Path,
    baseline: str = BASELINE,
    baseline_file: Path | None = None,
) -> ChairResult:
    """Score captions, and compare each arm with the baseline.

    Args:
        captions: By arm.
        settings: How captions are cut and analyzed, and the ground truth.
        source: The file or run folder of the captions.
        baseline: The arm that others are compared with, if it and another arm exist.
        baseline_file: The file of the baseline, if it is a separate one.
    Raises:
        EvaluationError: If the ground truth lacks a picture, or arms have different pictures.
    """
    analyzer = choose(settings.analyzer, fixes=settings.lexicon_fixes)
    truth = settings.truth(analyzer)
    arms = {}
    for name, found in captions.items():
        cut = [settings.cut(caption) for caption in found]
        arms[name] = ScoredArm(name, score(cut, truth.objects, analyzer))
    methods = [arm for name, arm in arms.items() if name != baseline]
    compared = [compare(arm, arms[baseline], analyzer) for arm in methods if baseline in arms]
    scored = tuple(arms.values())
    image_ids = [caption.image_id for caption in scored[0].captions]
    origin = origin_of(source)
    files = {"captions": source} | ({} if baseline_file is None else {"baseline": baseline_file})
    facts = {
        "protocol": PROTOCOL,
        "analyzer": analyzer.identity,
        "lexicon_fixes": "on" if settings.lexicon_fixes else "off",
        "cut": settings.cuts(),
        **({} if origin is None else {"captions_run": origin.words}),
        **{name: f"{path}, SHA-256 {captions_hash(path)}" for name, path in files.items()},
        "ground_truth": f"{settings.ground_truth or settings.coco_path}, SHA-256 of the "
        f"{len(image_ids)} pictures' objects {truth.hash(image_ids)}",
        "ground_truth_analyzer": truth.analyzer or "not stated by the file",
    }
    notes = _notes(scored, compared, analyzer, truth)
    published = "" if origin is None else published_table("chair", origin.model)
    return ChairResult(scored, with_holm(compared), facts, tuple(notes), published)


def sentence_row(caption: ScoredCaption) -> dict[str, Any]:
    """Return one caption's result for the output file, under the keys of OPERA's `chair.py`."""
    hallucinated = caption.hallucinated
    return {
        "image_id": caption.image_id,
        "caption": caption.text,
        "mscoco_gt_words": sorted(caption.truth),
        "mscoco_generated_words": [mention.object for mention in caption.mentions],
        "mscoco_hallucinated_words": [[mention.word, mention.object] for mention in hallucinated],
        "num_words": caption.num_words,
        "metrics": {
            "CHAIRs": int(bool(hallucinated)),
            "CHAIRi": len(hallucinated) / max(len(caption.mentions), 1),
            "Recall": len(caption.recalled) / max(len(caption.truth), 1),
            "Len": 0.01 * caption.num_words,
        },
    }


def _notes(
    arms: Sequence[ScoredArm],
    comparisons: Sequence[Comparison],
    analyzer: Analyzer,
    truth: GroundTruth,
) -> list[str]:
    empty = {arm.method: sum(not one.text.strip() for one in arm.captions) for arm in arms}
    lines = [f"note: {count} captions of {method} are empty and were scored as they are"
             for method, count in empty.items() if count]  # fmt: skip
    for arm in arms:
        if count := arm.without_objects():
            lines.append(
                f"note: {count} of {len(arm.captions)} captions of {arm.method} mention no object: "
                "CHAIRi ignores them, and CHAIRs counts them as free of hallucinations"
            )
        if names := [name for name, found in arm.intervals.items() if found.wilson]:
            lines.append(
                f"note: all captions of {arm.method} have the same {', '.join(names)}, so these "
                "intervals are Wilson's, over pictures"
            )
    for one in comparisons:
        if names := [name for name, found in one.differences.items() if found.wilson]:
            lines.append(
                f"note: {one.method} differs from {one.baseline} equally on all pictures in "
                f"{', '.join(names)}, so these intervals are Wilson's, over pictures"
            )
    lines += few_pictures_note(min(len(arm.captions) for arm in arms))
    if truth.analyzer is None:
        lines.append("note: the ground truth does not state how COCO's captions were analyzed")
    elif truth.analyzer != analyzer.identity:
        lines.append(
            f"note: the ground truth was analyzed by {truth.analyzer}, the captions by "
            f"{analyzer.identity}"
        )
    return lines


def _result(arm: ScoredArm) -> dict[str, Any]:
    return {
        "method": arm.method,
        "overall_metrics": in_json(arm.values()),
        "intervals": as_dicts(arm.intervals),
        "sentences": [sentence_row(caption) for caption in arm.captions],
    }


def _wrap(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
