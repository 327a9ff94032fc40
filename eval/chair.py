r"""Score captions with CHAIR.

    python eval/chair.py --cap_file captions.jsonl --image_id_key image_id --caption_key caption \
        --coco_path /data/COCO/annotations --save_path out.json

Prints CHAIRs, CHAIRi, Recall and Len with 95 % intervals. With a baseline, also prints the paired
differences and whether caption length alone could explain them.
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
    """Settings of `chair.py`; `parser` describes each of them."""

    cap_file: Path
    baseline: Path | None = None
    image_id_key: str = "image_id"
    caption_key: str = "caption"
    last: bool = False

    def score(self) -> ChairResult:
        """Score the captions, with those of --baseline first.

        Raises:
            EvaluationError: If a file has no usable captions, or the baseline has several methods.
        """
        arms, name = self._read(self.cap_file), BASELINE
        if self.baseline is not None:
            (name, captions), *more = self._read(self.baseline).items()
            if more:
                raise EvaluationError(
                    f"--baseline {self.baseline} has captions of {len(more) + 1} methods; pass "
                    "a file with one method"
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
    flag = flags.flag
    flag(
        "--cap_file", type=Path, required=True, help="captions: a file, or a chair_eval run folder"
    )
    flag("--image_id_key", metavar="KEY", help="key of the image id (default: image_id)")
    flag("--caption_key", metavar="KEY", help="key of the caption's text (default: caption)")
    flag("--coco_path", type=Path, help="folder of COCO's instances and captions files of 2014")
    flag("--splits", nargs="+", choices=SPLITS, help=f"{', '.join(SPLITS)} (default: both)")
    flag("--cache", type=Path, metavar="FILE",
         help="JSON file for the parsed annotations (default: in --coco_path)")  # fmt: skip
    flag(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="objects by image id, instead of --coco_path",
    )
    flag("--save_path", "--json", type=Path, metavar="FILE",
         help="write all results to this JSON file, one entry per caption")  # fmt: skip
    flag("--baseline", type=Path, help="captions of the same pictures to compare with")
    flag("--analyzer", choices=ANALYZERS,
         help=f"how words are analyzed: {', '.join(ANALYZERS)} (default: auto)")  # fmt: skip
    flag("--max-words", type=int, help="score only the first N words of each caption")
    flag("--drop-unfinished", action="store_true", help="ignore a last sentence that is cut off")
    flag("--lexicon-fixes", action="store_true",
         help="add the words that CHAIR's list intends but never matches")  # fmt: skip
    flag("--last", action="store_true", help="use the last of several captions of a picture")
    flag(
        "--num-workers", type=int, help="processes that parse COCO's captions (default: CPU cores)"
    )
    flag(
        "--report", type=Path, metavar="FILE", help="write an HTML page with captions side by side"
    )
    flag("--images", type=Path, help="folder of the pictures to show in --report")
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
    """Score captions, write the requested files and print the result."""
    if images is not None and (report is None or not images.is_dir()):
        raise EvaluationError(f"--images {images} must be an existing folder, and needs --report")
    files = output_files("chair", overwrite=overwrite, save_path=save_path, report=report)
    given = [getattr(inputs, item.name) for item in fields(inputs) if item.name != "cache"]
    read, cache = paths_in(*given, images), paths_in(inputs.cache)
    if any(same_file(one, path) for one in cache for path in read):
        raise EvaluationError(f"--cache {cache[0]} is also an input file; name another file")
    check_outputs(files.values(), [*read, *cache])
    result = inputs.score()
    if "save_path" in files:
        files["save_path"].write_json(result.as_dict())
    if "report" in files:
        files["report"].write_page(report_page(result, images))
    print(result.text())


if __name__ == "__main__":
    sys.exit(main())
