"""Score captions with CHAIR.

    python eval/chair.py --cap_file captions.jsonl --image_id_key image_id --caption_key caption \
        --coco_path /data/COCO/annotations --save_path out.json

Prints CHAIRs, CHAIRi, Recall and Len with their 95 % intervals and, beside a baseline, how sure the
difference is and whether the length of the captions alone could explain it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.coco import SPLITS
from eval.run.flag_parser import FlagParser
from eval.tasks.chair.analyzers import ANALYZERS, choose
from eval.tasks.chair.compare import compare
from eval.tasks.chair.inputs import ChairInputs
from eval.tasks.chair.output import facts_of, notes, output, result_table, save
from eval.tasks.chair.report import write_report
from eval.tasks.chair.scoring import ScoredArm, score


def parser() -> FlagParser:
    """Return the command's flags."""
    flags = FlagParser((__doc__ or "").splitlines()[0])
    flags.flag("--cap_file", type=Path, required=True, help="captions, or a chair_eval run folder")
    flags.flag("--image_id_key", metavar="KEY", help="where a caption has its image id (image_id)")
    flags.flag("--caption_key", metavar="KEY", help="where it has its text (caption)")
    flags.flag("--coco_path", type=Path, help="folder of COCO's instances and captions, 2014")
    flags.flag("--splits", nargs="+", choices=SPLITS, help="annotation files to read (both)")
    flags.flag("--cache", type=Path, help="JSON file of what was read (beside the annotations)")
    flags.flag("--ground-truth", type=Path, help="such a file instead of annotations")
    flags.flag("--save_path", type=Path, help="JSON file to write, one entry per caption")
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
    given = inputs.arms()
    analyzer = choose(inputs.analyzer, fixes=inputs.lexicon_fixes)
    truth = inputs.truth(analyzer)
    arms = [ScoredArm(name, score(captions, truth.objects, analyzer))
            for name, captions in given.captions.items()]  # fmt: skip
    methods = [arm for arm in arms if arm.method != given.baseline]
    comparisons = [compare(arm, one, analyzer)
                   for one in arms if one.method == given.baseline for arm in methods]  # fmt: skip
    facts = facts_of(inputs, arms, analyzer, truth)
    print(f"{facts['protocol']}; analyzer {facts['analyzer']}\n")
    print(result_table(arms) + "\n")
    for line in notes(arms, comparisons, inputs=inputs, analyzer=analyzer, truth=truth):
        print(line)
    if save_path is not None:
        save(save_path, output(arms, comparisons, method=methods[0].method, facts=facts))
    if report is not None:
        write_report(report, arms, comparisons, facts=facts, images=images)


if __name__ == "__main__":
    sys.exit(main())
