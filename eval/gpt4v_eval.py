"""Compare two answers per picture with a vision model as judge.

    python eval/gpt4v_eval.py --model llava-1.5 --data-path /data/COCO/val2014 --gpu-id 0
    python eval/gpt4v_eval.py --answers-1 baseline.jsonl --answers-2 eah.jsonl --data-path ...

The first line describes pictures under two methods and has the descriptions judged, the second has
files of answers judged and loads no model. The same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from eval.chair_eval import choose_pictures
from eval.command import RUN_ERRORS, finish
from eval.errors import EvaluationError
from eval.run.flags import Parser, resolve
from eval.run.processes import this_place
from eval.tasks.chair.images import NUM_IMAGES, pictures_in
from eval.tasks.chair.settings import ChairSettings
from eval.tasks.judge.answers import Format, Pair, from_files, from_run
from eval.tasks.judge.config import CONFIG_FILE, read_config
from eval.tasks.judge.plan import JudgeInputs
from eval.tasks.judge.prompts import MODES, PROTOCOLS
from eval.tasks.judge.run import judge_pair

NUM_JUDGED: Final = 50
METHODS: Final = ("baseline", "eah")
ANSWERS: Final = ("answers_1", "answers_2", "answers_from")
JUDGE: Final = ("judge_model", "judge_base_url", "judge_protocol", "judge_mode", "judge_workers",
                "max_cost", "max_requests")  # fmt: skip
LAYOUT: Final = ("image_id_key", "caption_key", "last")
INPUTS: Final = ("coco_path", "ground_truth", "single_order")
RUN: Final = ("api_key_file", "ask_again", "dry_run", "report")
# Flags that go with files of answers; all others say how a model makes them.
OF_FILES: Final = (*ANSWERS, *JUDGE, *LAYOUT, *INPUTS, *RUN, "judge_config", "num_images",
                   "data_path", "output_dir", "method", "limit")  # fmt: skip


def add_judge_flags(flags: Parser) -> None:
    """Add what says which answers are judged, by whom, and within which bounds."""
    flags.flag("--answers-1", type=Path, metavar="FILE", help="answers to judge; no model is asked")
    flags.flag("--answers-2", type=Path, metavar="FILE", help="answers to compare them with")
    flags.flag("--answers-from", type=Path, metavar="FOLDER", help="both, from a chair_eval run")
    flags.flag("--image_id_key", metavar="KEY", help="where an answer has its image id (image_id)")
    flags.flag("--caption_key", metavar="KEY", help="where it has its text (caption)")
    flags.flag("--last", action="store_true", help="of several answers per picture take the last")
    flags.flag("--num-images", type=int, help=f"pictures judged, the first so many ({NUM_JUDGED})")
    flags.flag("--judge-model", metavar="NAME", help="the judge (configs/judge.yaml names one)")
    flags.flag("--judge-base-url", metavar="URL", help="endpoint that speaks chat completions")
    flags.flag("--judge-protocol", help=f"{' or '.join(PROTOCOLS)}: how it is asked (opera)")
    flags.flag("--judge-mode", help=f"{' or '.join(MODES)}: what it is shown (image)")
    flags.flag("--judge-workers", type=int, help="requests under way at a time (8)")
    flags.flag("--judge-config", type=Path, metavar="FILE", help="instead of configs/judge.yaml")
    flags.flag("--api-key-file", type=Path, metavar="FILE", help="key (else OPENAI_API_KEY)")
    flags.flag("--coco_path", type=Path, help="text mode: folder of COCO's instances, 2014")
    flags.flag("--ground-truth", type=Path, help="text mode: a file of objects by image id")
    flags.flag("--single-order", action="store_true", help="one order, as the paper has it")
    flags.flag("--max-cost", type=float, metavar="USD", help="never spend more on this run")
    flags.flag("--max-requests", type=int, help="never send more on this run")
    flags.flag("--dry-run", action="store_true", help="print requests, tokens and cost; send none")
    flags.flag("--ask-again", action="store_true", help="ask again what was refused or rejected")
    flags.flag("--report", type=Path, metavar="FILE", help="HTML page to write")


def parse(arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return the flags that were given.

    Raises:
        EvaluationError: If flags of a model are given together with files of answers.
    """
    given = parser().parse(arguments)
    extra = [name for name in given if name not in OF_FILES]
    if extra and any(name in given for name in ANSWERS):
        raise EvaluationError(
            f"--{extra[0].replace('_', '-')} says how answers are made, but the answers are there "
            "already; leave it out, or leave out the files of answers"
        )
    return given


def parser() -> Parser:
    """Return the command's flags."""
    flags = Parser((__doc__ or "").splitlines()[0])
    add_judge_flags(flags)
    flags.flag("--question", metavar="TEXT", help="what the model is asked (the protocol's)")
    flags.flag("--image-ids", type=Path, metavar="FILE", help="ids, or captions, of the pictures")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("gpt4v_eval", lambda: evaluate(parse(arguments)), *RUN_ERRORS)


def evaluate(given: dict[str, Any]) -> None:
    """Get the answers, have them judged, and say what came of it."""
    judge, inputs, run = (_taken(given, names) for names in (JUDGE, INPUTS, RUN))
    config = read_config(given.pop("judge_config", CONFIG_FILE), judge)
    count = given.pop("num_images", NUM_JUDGED)
    if min(count, given.get("limit", count)) < 1:
        raise EvaluationError(f"num_images={count}, limit={given.get('limit')}: at least 1 each")
    if any(name in given for name in ANSWERS):
        pair = pair_of_files(given, min(count, given.get("limit", count)))
        data_path, output_dir = given.get("data_path"), given.get("output_dir", Path("runs"))
    else:
        settings = captioning(given, count)
        pictures = choose_pictures(settings)
        # Not before: it loads torch, which takes seconds, and what is wrong so far has been said.
        from eval.tasks.judge.captions import from_model

        pair = from_model(settings, pictures)
        data_path, output_dir = settings.data_path, settings.output_dir
    judge_pair(
        pair, config, JudgeInputs(data_path=data_path, **inputs), output_dir=output_dir, **run
    )


def _taken(given: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: given.pop(name) for name in names if name in given}


def captioning(given: dict[str, Any], count: int) -> ChairSettings:
    """Return the settings of captioning that flags ask for.

    Args:
        given: Flags of captioning.
        count: Pictures to judge: the first so many of those that chair_eval.py would describe.
    Raises:
        EvaluationError: If a setting is not allowed, or there are other than two methods.
        ModelError: If there is no such model.
    """
    if not this_place().is_alone:
        raise EvaluationError(
            "a judge is asked by one process; describe the pictures with several by chair_eval.py, "
            "then start this command once: it takes the captions from there"
        )
    settings = resolve(ChairSettings(), given)
    arms = settings.arms()
    if len(arms) != 2:
        raise EvaluationError(
            f"--method {' '.join(arms)}: two methods are compared; name two, such as baseline eah"
        )
    folder = settings.pictures_folder()
    if settings.image_ids is None and settings.num_images is None:
        number = min(max(NUM_IMAGES, count), len(pictures_in(folder)))
        settings = replace(settings, num_images=number)
    return replace(settings, limit=min(count, settings.limit or count))


def pair_of_files(given: dict[str, Any], count: int) -> Pair:
    """Return the answers that are there already, of the first so many pictures.

    Raises:
        EvaluationError: If it is not clear which two are compared.
    """
    layout = Format(**_taken(given, LAYOUT))
    first, second = given.get("answers_1"), given.get("answers_2")
    folder, methods = given.get("answers_from"), given.get("method")
    if folder is not None and first is None and second is None:
        if methods is not None and (len(methods) != 2 or methods[0] == methods[1]):
            raise EvaluationError(f"--method {' '.join(methods)}: name two methods to compare")
        pair = from_run(folder, methods or METHODS, layout)
    elif folder is None and methods is None and first is not None and second is not None:
        pair = from_files(first, second, layout)
    else:
        raise EvaluationError(
            "which answers are compared? Pass --answers-1 and --answers-2, or --answers-from with "
            "a run folder and --method with two of its methods"
        )
    if len(pair.ids) > count:
        print(
            f"note: the first {count} of {len(pair.ids)} pictures are judged; --num-images "
            f"{len(pair.ids)} takes all",
            file=sys.stderr,
        )
    return pair.cut(count)


if __name__ == "__main__":
    sys.exit(main())
