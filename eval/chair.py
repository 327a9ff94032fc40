r"""Score captions with CHAIR.

    python eval/chair.py --cap_file captions.jsonl --image_id_key image_id --caption_key caption \
        --coco_path /data/COCO/annotations --save_path out.json

Prints CHAIRs, CHAIRi, Recall and Len with their 95 % intervals and, beside a baseline, how sure the
difference is and whether the length of the captions alone could explain it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Caption
from eval.files.coco import SPLITS
from eval.files.storage import write_json
from eval.run.flag_parser import FlagParser
from eval.tasks.chair.analyzers import ANALYZERS
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.output import ChairResult, score_captions
from eval.tasks.chair.report import write_report
from eval.tasks.chair.scoring import ScoreSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChairInputs(ScoreSettings):
    """What `chair.py` scores, and how; `parser` says what each setting is."""

    cap_file: Path
    baseline: Path | None = None
    image_id_key: str = "image_id"
    caption_key: str = "caption"
    last: bool = False

    def score(self) -> ChairResult:
        """Score the captions, those of --baseline first.

        Raises:
            EvaluationError: If a file has no usable captions, or the baseline's several methods.
        """
        arms, name = self._read(self.cap_file), BASELINE
        if self.baseline is not None:
            (name, captions), *more = self._read(self.baseline).items()
            if more:
                raise EvaluationError(
                    f"--baseline {self.baseline} holds captions of {len(more) + 1} methods; pass "
                    "a file of one"
                )
            name = str(self.baseline) if name in arms else name
            arms = {name: captions, **arms}
        return score_captions(arms, self, source=self.cap_file, baseline=name,
                              baseline_file=self.baseline)  # fmt: skip

    def _read(self, path: Path) -> dict[str, list[Caption]]:
        return read_captions(
            path, image_id_key=self.image_id_key, caption_key=self.caption_key, last=self.last
        )


def parser() -> FlagParser:
    """Return the command's flags."""
    flags = FlagParser(__doc__ or "")
    flags.flag("--cap_file", type=Path, required=True, help="captions, or a chair_eval run folder")
    flags.flag("--image_id_key", metavar="KEY", help="where a caption has its image id (image_id)")
    flags.flag("--caption_key", metavar="KEY", help="where it has its text (caption)")
    flags.flag("--coco_path", type=Path, help="folder of COCO's instances and captions, 2014")
    flags.flag("--splits", nargs="+", choices=SPLITS, help="annotation files to read (both)")
    flags.flag("--cache", type=Path, help="JSON file of what was read (beside the annotations)")
    flags.flag("--ground-truth", type=Path, help="such a file instead of annotations")
    flags.flag("--save_path", "--json", type=Path, metavar="FILE",
               help="JSON file to write: all results, one entry per caption")  # fmt: skip
    flags.flag("--baseline", type=Path, help="captions to compare with, of the same pictures")
    flags.flag("--analyzer", choices=ANALYZERS, help="how captions are read (auto)")
    flags.flag("--max-words", type=int, help="cut captions after so many words")
    flags.flag("--drop-unfinished", action="store_true", help="leave out a sentence without end")
    flags.flag("--lexicon-fixes", action="store_true", help="words CHAIR means but never matches")
    flags.flag("--last", action="store_true", help="of several captions of a picture take the last")
    flags.flag("--num-workers", type=int, help="processes that read COCO's captions (one a core)")
    flags.flag("--report", type=Path, help="HTML page to write, captions side by side")
    flags.flag("--images", type=Path, help="folder of the pictures, to show them in the report")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = parser().parse(arguments)
    files = {name: given.pop(name, None) for name in ("save_path", "report", "images")}
    if "splits" in given:
        given["splits"] = tuple(given["splits"])
    return finish(
        "chair", lambda: evaluate(ChairInputs(**given), **files), interrupted="nothing was written"
    )


def evaluate(
    inputs: ChairInputs,
    *,
    save_path: Path | None = None,
    report: Path | None = None,
    images: Path | None = None,
) -> None:
    """Score captions, print the result, and write the files that are asked for."""
    if images is not None and (report is None or not images.is_dir()):
        raise EvaluationError(f"--images {images}: it must be a folder, and needs --report")
    result = inputs.score()
    print(result.text())
    if save_path is not None:
        write_json(save_path, result.as_dict())
    if report is not None:
        write_report(report, result, images)


if __name__ == "__main__":
    sys.exit(main())
