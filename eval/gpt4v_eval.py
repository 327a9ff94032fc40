"""Compare two answers per picture with a vision model as judge.

    python eval/gpt4v_eval.py --model llava-1.5 --data-path /data/COCO/val2014 --gpu-id 0
    python eval/gpt4v_eval.py --answers-1 baseline.jsonl --answers-2 eah.jsonl --data-path ...

The first example has a model describe pictures under two methods, and the judge compares the
descriptions. The second compares files of answers and loads no model. Rerun to resume.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from eval.command import RUN_ERRORS, finish
from eval.errors import EvaluationError
from eval.output.table import WIDTH
from eval.run.arms import DEFAULT_ARMS, arms_of, with_arms
from eval.run.flags import Parser, resolve
from eval.run.folder import METRICS
from eval.run.outputs import OutputFile, check_outputs, output_files, paths_in
from eval.run.processes import this_process
from eval.tasks.chair.images import NUM_IMAGES, pictures_in
from eval.tasks.chair.task import ChairCaptions, ChairSettings
from eval.tasks.judge.captions import Format, from_files, from_model, from_run
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.inputs import JudgeInputs
from eval.tasks.judge.judging import JudgingOptions, judge_all
from eval.tasks.judge.keys import Key
from eval.tasks.judge.output import (
    JudgedRun,
    headline,
    metrics,
    metrics_without_judgements,
    notes,
    result_table,
)
from eval.tasks.judge.plan import plan_judging
from eval.tasks.judge.protocols import MODES, PROTOCOLS
from eval.tasks.judge.report import report_page
from eval.tasks.judge.requests import Pair
from eval.tasks.judge.start import add_judge_flags, config_of, names_of, run_with_key, take_fields
from eval.tasks.judge.store import Judgements

NUM_JUDGED: Final = 50
ANSWERS: Final = ("answers_1", "answers_2", "answers_from")
WRITTEN: Final = ("json", "report", "output_dir")


def parser() -> Parser:
    """Return the command's flags: those of a model, and of answers, judge and limits."""
    flags = Parser(__doc__ or "", table=False)
    flag = flags.flag
    flag("--answers-1", type=Path, metavar="FILE", help="judge these answers; no model is loaded")
    flag("--answers-2", type=Path, metavar="FILE", help="answers to compare them with")
    flag("--answers-from", type=Path, metavar="FOLDER", help="both, from a chair_eval.py run")
    flag("--image_id_key", metavar="KEY", help="key of the image id (default: image_id)")
    flag("--caption_key", metavar="KEY", help="key of the answer's text (default: caption)")
    flag("--last", action="store_true", help="use the last of several answers about a picture")
    flag("--num-images", type=int, help=f"judge the first N pictures (default: {NUM_JUDGED})")
    add_judge_flags(flags)
    flag("--judge-protocol", help=f"prompt: {' or '.join(PROTOCOLS)} (default: opera)")
    flag("--judge-mode", help=f"what the judge sees: {' or '.join(MODES)} (default: image)")
    flag("--coco_path", type=Path, help="text mode: folder of COCO's instances files of 2014")
    flag("--ground-truth", type=Path, help="text mode: JSON file of objects by image id")
    flag("--single-order", action="store_true", help="judge in one order only, as the paper does")
    flag("--ask-again", action="store_true", help="repeat requests that were refused or rejected")
    flag("--report", type=Path, metavar="FILE", help="write an HTML page of the results")
    flag("--question", metavar="TEXT", help="question to the model (default: the protocol's)")
    flag("--image-ids", type=Path, metavar="FILE", help="list of image ids, or a file of captions")
    return flags


def parse(arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return the flags that were given.

    Raises:
        EvaluationError: If flags of a model are given together with files of answers.
    """
    given = parser().parse(arguments)
    of_files = {*ANSWERS, "judge_config", "num_images", "method", "limit"}
    of_files.update(*map(names_of, (JudgeConfig, JudgeInputs, Format)))
    extra = [name for name in given if name not in of_files]
    if extra and any(name in given for name in ANSWERS):
        raise EvaluationError(
            f"--{extra[0].replace('_', '-')} affects how a model answers, but answers are given "
            "by file; leave it out, or leave out the files of answers"
        )
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("gpt4v_eval", lambda: run_with_key(parse(arguments), evaluate), *RUN_ERRORS)


def evaluate(given: dict[str, Any], key: Key | EvaluationError) -> None:
    """Get the answers, have them judged and print the results."""
    read = paths_in(*(of for name, of in given.items() if name not in WRITTEN))
    config = config_of(given, key)
    shared: dict[str, Any] = {
        name: given[name] for name in ("data_path", "output_dir") if name in given
    }
    inputs = JudgeInputs(**take_fields(given, JudgeInputs))
    check_outputs(_files(inputs).values(), read)
    count = given.pop("num_images", NUM_JUDGED)
    if min(count, given.get("limit", count)) < 1:
        raise EvaluationError(f"num_images={count}, limit={given.get('limit')}; each must be >= 1")
    if any(name in given for name in ANSWERS):
        pair = pair_of_files(given, min(count, given.get("limit", count)))
    else:
        settings = captioning_settings({**given, **shared}, count)
        inputs = replace(inputs, data_path=settings.data_path, output_dir=settings.output_dir)
        items = ChairCaptions(settings).items()
        found = from_model(settings, items, dry_run=inputs.dry_run)
        if found is None:
            print(
                "no estimate for judging yet: it needs the descriptions (chair_eval.py makes them)"
            )
            return
        pair = found
    judge_pair(pair, config, inputs, key)


def captioning_settings(given: dict[str, Any], count: int) -> ChairSettings:
    """Return the captioning settings that flags give.

    The pictures are the first `count` of those that chair_eval.py would describe.

    Raises:
        EvaluationError: If a setting is not allowed, or there are not exactly two methods.
        ModelError: If the model is unknown.
    """
    if not this_process().is_alone:
        raise EvaluationError(
            "judging uses one process; run chair_eval.py with several processes first, then start "
            "this command once: it reuses the captions"
        )
    settings = resolve(ChairSettings(), given)
    if settings.repeats > 1:
        raise EvaluationError(
            f"repeats={settings.repeats}, but a judge compares two texts per picture once; leave "
            "--repeats out (chair_eval.py has it)"
        )
    names = [arm.name for arm in arms_of(settings)]
    if settings.method is None and len(names) > 2:
        names = [names[0], names[-1]]  # OPERA's flags: the baseline and OPERA on top of EAH
    if len(names) != 2:
        raise EvaluationError(
            f"--method {' '.join(names)}: exactly two methods are needed, such as baseline eah"
        )
    settings = with_arms(settings, names)
    folder = settings.pictures_folder()
    if settings.image_ids is None and settings.num_images is None:
        number = min(max(NUM_IMAGES, count), len(pictures_in(folder)))
        settings = replace(settings, num_images=number)
    return replace(settings, limit=min(count, settings.limit or count))


def pair_of_files(given: dict[str, Any], count: int) -> Pair:
    """Return the given answers about the first `count` pictures.

    Raises:
        EvaluationError: If the flags do not name exactly two sets of answers.
    """
    layout = Format(**take_fields(given, Format))
    first, second = given.get("answers_1"), given.get("answers_2")
    folder, methods = given.get("answers_from"), given.get("method")
    if folder is not None and first is None and second is None:
        if methods is not None and (len(methods) != 2 or methods[0] == methods[1]):
            raise EvaluationError(f"--method {' '.join(methods)}: name two methods to compare")
        pair = from_run(folder, methods or DEFAULT_ARMS, layout)
    elif folder is None and methods is None and first is not None and second is not None:
        pair = from_files(first, second, layout)
    else:
        raise EvaluationError(
            "it is unclear which answers to compare; pass --answers-1 and --answers-2, or "
            "--answers-from with a run folder and --method with two of its methods"
        )
    if len(pair.ids) > count:
        print(
            f"note: judging the first {count} of {len(pair.ids)} pictures; --num-images "
            f"{len(pair.ids)} judges all",
            file=sys.stderr,
        )
    return pair.cut(count)


def judge_pair(
    pair: Pair, config: JudgeConfig, inputs: JudgeInputs, found: Key | EvaluationError
) -> None:
    """Get all judgements of two arms, then print and write the results.

    Raises:
        EvaluationError: If something is missing or not allowed, or judgements are missing.
    """
    files = _files(inputs)
    if len(pair.equal) == len(pair.ids):
        if "json" in files:
            files["json"].write_json(metrics_without_judgements(pair))
        print(
            f"nothing to judge: {pair.first.name} and {pair.second.name} have the same answers for "
            f"all {len(pair.ids)} pictures"
        )
        return
    plan = plan_judging(pair, config, inputs)
    folder = plan.folder(inputs.output_dir)

    def report(judgements: Judgements) -> None:
        run = JudgedRun(config, plan, pair, judgements)
        content = judgements.hide_in(metrics(run))
        folder.write(METRICS, content)
        if "json" in files:
            files["json"].write_json(content)
        if "report" in files:
            files["report"].write_page(report_page(run, images=inputs.data_path))
        _show(run)

    unsent = pair.equal_in_words() if pair.equal else ""
    asked = JudgingOptions(inputs.dry_run, inputs.ask_again, unsent=unsent)
    judge_all(plan.requests, folder, config, found, asked, report)


def _files(inputs: JudgeInputs) -> dict[str, OutputFile]:
    """Return the requested output files by flag name."""
    paths = {"json": inputs.json, "report": inputs.report}
    return output_files("judge", overwrite=inputs.overwrite, **paths)


def _show(run: JudgedRun) -> None:
    """Print the result."""
    hide_in = run.judgements.hide_in
    print(*hide_in(headline(run)), "", sep="\n")
    print(hide_in(result_table(run)) + "\n")
    for line in hide_in(notes(run)):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False))


if __name__ == "__main__":
    sys.exit(main())
