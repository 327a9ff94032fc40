"""What `chair.py` is given: which captions to score, cut how, against which ground truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eval.errors import EvaluationError
from eval.files.coco import SPLITS
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.captions import Caption, cut_words, drop_unfinished, read_captions
from eval.tasks.chair.truth import GroundTruth, read
from eval.tasks.chair.truth_build import cached_truth


class Arms(NamedTuple):
    """Captions by method, and which of them is the baseline, if any."""

    captions: dict[str, list[Caption]]
    baseline: str | None


@dataclass(frozen=True, slots=True)
class ChairInputs:
    """Settings of `chair.py` that decide its numbers.

    Attributes:
        cap_file: Captions to score: a file, or a run folder of `chair_eval.py`.
        baseline: Captions to compare them with.
        image_id_key: Where a caption has its image's id.
        caption_key: Where it has its text.
        last: Take the last caption where a picture has several.
        max_words: Cut captions after so many words.
        drop_unfinished: Leave out a last sentence that has no end.
        coco_path: Folder of COCO's annotations.
        splits: Which of them.
        cache: Where what is built of them is kept; None for a file beside them.
        ground_truth: A ground truth file instead of annotations.
        analyzer: "auto", "nltk" or "lexicon".
        lexicon_fixes: Add the words that CHAIR's list means but never matches.
        num_workers: Processes that read COCO's captions; None for one per core.
    """

    cap_file: Path
    baseline: Path | None = None
    image_id_key: str = "image_id"
    caption_key: str = "caption"
    last: bool = False
    max_words: int | None = None
    drop_unfinished: bool = False
    coco_path: Path | None = None
    splits: tuple[str, ...] = SPLITS
    cache: Path | None = None
    ground_truth: Path | None = None
    analyzer: str = "auto"
    lexicon_fixes: bool = False
    num_workers: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            EvaluationError: Naming the flag, its value and what is allowed.
        """
        for name in ("max_words", "num_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"--{name} {value}, but at least 1 is needed")
        if self.coco_path is None and self.ground_truth is None:
            raise EvaluationError(
                "no ground truth: pass --coco_path with the folder of COCO's annotations "
                "(scripts/download_data.sh fetches them), or --ground-truth with a file"
            )
        if self.coco_path is not None and self.ground_truth is not None:
            raise EvaluationError(
                f"--coco_path {self.coco_path} and --ground-truth {self.ground_truth} are both "
                "given; pass one of them"
            )

    def arms(self) -> Arms:
        """Return the captions to score by method, the baseline first, cut as asked for.

        Raises:
            EvaluationError: If a file has no usable captions, or the baseline's several methods.
        """
        scored = self._read(self.cap_file)
        if self.baseline is None:
            name = "baseline" if "baseline" in scored and len(scored) > 1 else None
            return Arms(scored, name)
        (name, captions), *more = self._read(self.baseline).items()
        if more:
            raise EvaluationError(
                f"--baseline {self.baseline} holds captions of {len(more) + 1} methods; pass a "
                "file of one"
            )
        if name in scored:
            name = str(self.baseline)
        return Arms({name: captions, **scored}, name)

    def truth(self, analyzer: Analyzer) -> GroundTruth:
        """Return the ground truth, from the file or from COCO's annotations."""
        if self.ground_truth is not None:
            return read(self.ground_truth)
        assert self.coco_path is not None
        fixes = "-fixes" if self.lexicon_fixes else ""
        name = f"chair_ground_truth-{analyzer.name}{fixes}-{'+'.join(self.splits)}.json.gz"
        return cached_truth(
            self.coco_path,
            analyzer,
            splits=self.splits,
            cache=self.cache or self.coco_path / name,
            num_workers=self.num_workers or os.cpu_count() or 1,
        )

    def _read(self, path: Path) -> dict[str, list[Caption]]:
        arms = read_captions(
            path, image_id_key=self.image_id_key, caption_key=self.caption_key, last=self.last
        )
        return {method: [self._cut(caption) for caption in of] for method, of in arms.items()}

    def _cut(self, caption: Caption) -> Caption:
        text = caption.text
        if self.max_words is not None:
            text = cut_words(text, self.max_words)
        if self.drop_unfinished:
            text = drop_unfinished(text)
        return Caption(caption.image_id, text)
