r"""Score captions with CHAIR.

    python eval/chair.py --cap_file captions.jsonl --image_id_key image_id --caption_key caption \
        --coco_path /data/COCO/annotations --save_path out.json

Prints CHAIRs, CHAIRi, Recall and Len with their 95 % intervals and, beside a baseline, how sure the
difference is and whether the length of the captions alone could explain it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Caption
from eval.files.coco import SPLITS
from eval.run.flag_parser import FlagParser
from eval.run.outputs import check_outputs, output_files, paths_in, same_file
from eval.tasks.chair.analyzers import ANALYZERS
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.output import ChairResult, score_captions
from eval.tasks.chair.report import report_page
from eval.tasks.chair.scoring import ScoreSettings

FILES: Final = ("save_path", "report", "images", "overwrite")


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
    flags.overwrite_flag()
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("chair", lambda: _run(arguments), interrupted="run it again")


def _run(arguments: Sequence[str] | None) -> None:
    given = parser().parse(arguments)
    own = {name: given.pop(name) for name in FILES if name in given}
    if "splits" in given:
        given["splits"] = tuple(given["splits"])
    evaluate(ChairInputs(**given), **own)


def evaluate(
    inputs: ChairInputs,
    *,
    save_path: Path | None = None,
    report: Path | None = None,
    images: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score captions, write the files that are asked for, and print the result."""
    if images is not None and (report is None or not images.is_dir()):
        raise EvaluationError(f"--images {images}: it must be a folder, and needs --report")
    files = output_files("chair", overwrite=overwrite, save_path=save_path, report=report)
    given = [getattr(inputs, item.name) for item in fields(inputs) if item.name != "cache"]
    read, cache = paths_in(*given, images), paths_in(inputs.cache)
    if any(same_file(one, path) for one in cache for path in read):
        raise EvaluationError(f"--cache {cache[0]} is read as something else; name another file")
    check_outputs(files.values(), [*read, *cache])
    result = inputs.score()
    if "save_path" in files:
        files["save_path"].write_json(result.as_dict())
    if "report" in files:
        files["report"].write_page(report_page(result, images))
    print(result.text())


if __name__ == "__main__":
    sys.exit(main())
