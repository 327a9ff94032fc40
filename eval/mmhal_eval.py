"""Have answers to MMHal-Bench rated by a judge, from 0 to 6.

    python eval/mmhal_eval.py --answers baseline.json eah.json --template eval_gpt_mmhal.py

The answers are files in the benchmark's layout, or run folders of `eval/evaluate.py --task mmhal`
with `--questions response_template.json`. The judge gets labels, question, reference answer and
response, but no picture. Rerun the command to resume; recorded replies are not paid for again.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Final

from eah.errors import nearest
from eval.command import RUN_ERRORS, finish
from eval.errors import EvaluationError
from eval.output.table import WIDTH
from eval.run.flag_parser import FlagParser
from eval.run.folder import METRICS
from eval.run.outputs import check_outputs, output_files, paths_in
from eval.run.processes import this_process
from eval.tasks.judge.judging import JudgingOptions, judge_all
from eval.tasks.judge.keys import Key
from eval.tasks.judge.start import add_judge_flags, config_of, run_with_key, take_fields
from eval.tasks.judge.store import Judgements
from eval.tasks.mmhal.answers import read_arms
from eval.tasks.mmhal.output import headline, metrics, notes, script_table, tables
from eval.tasks.mmhal.plan import plan_ratings
from eval.tasks.mmhal.rated import RatedRun
from eval.tasks.mmhal.scoring import has_rating
from eval.tasks.mmhal.template import read_template

WRITTEN: Final = ("json", "output_dir")
NOT_SENT: Final = "none"


@dataclass(frozen=True, slots=True)
class MMHalInputs:
    """Settings of a judging run that flags set, besides the judge.

    Attributes:
        answers: Files of answers, or run folders.
        questions: The question file; None for the questions in the first file.
        template: File with the judge's prompt.
        reference: Arm that the others are compared with; None for the first.
        temperature: A number, or "none" to send none; None for that of the judge's file, else 0.
        output_dir: Folder in which run folders are created.
        api_key_file: File with the key; None for OPENAI_API_KEY.
        ask_again: Repeat requests that were refused or rejected, or whose reply can't be read.
        dry_run: Print what would be sent, and send nothing.
        json: JSON file for all results.
        overwrite: Allow `json` to replace a file that this command did not write.
    """

    answers: Sequence[Path] = ()
    questions: Path | None = None
    template: Path | None = None
    reference: str | None = None
    temperature: str | None = None
    output_dir: Path = Path("runs")
    api_key_file: Path | None = None
    ask_again: bool = False
    dry_run: bool = False
    json: Path | None = None
    overwrite: bool = False


def parser() -> FlagParser:
    """Return the command's flags."""
    flags = FlagParser(__doc__ or "")
    flag = flags.flag
    flag("--answers", nargs="+", type=Path, metavar="FILE", help="files of answers, or run folders")
    flag("--questions", type=Path, metavar="FILE",
         help="response_template.json (default: the questions in the first file)")  # fmt: skip
    flag("--template", type=Path, metavar="FILE", help="the judge's prompt: eval_gpt_mmhal.py, or "
         "a text with four {}: labels, question, reference answer, response")  # fmt: skip
    flag("--reference", metavar="ARM", help="arm to compare with (default: the first)")
    add_judge_flags(flags)
    flag("--temperature", metavar="X", help="sampling temperature of the judge, or "
         f"{NOT_SENT} to send none (default: that of --judge-config, else 0)")  # fmt: skip
    flag("--ask-again", action="store_true",
         help="repeat requests that were refused, rejected, or answered unreadably")  # fmt: skip
    flag("--dry-run", action="store_true", group="running", help="print what would be sent; stop")
    flag("--output-dir", type=Path, group="output", help="parent of run folders (default: runs)")
    flag("--json", type=Path, metavar="FILE", group="output", help="write all results to this file")
    flags.overwrite_flag()
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish(
        "mmhal_eval", lambda: run_with_key(parser().parse(arguments), evaluate), *RUN_ERRORS
    )


def evaluate(given: dict[str, Any], key: Key | EvaluationError) -> None:
    """Read the answers, have them rated and print the results.

    Raises:
        EvaluationError: If something is missing or not allowed, or ratings are missing.
    """
    if not this_process().is_alone:
        raise EvaluationError(
            "judging uses one process; start this command once, without a launcher"
        )
    read = paths_in(*(of for name, of in given.items() if name not in WRITTEN))
    sent = given.pop("temperature", None)
    config = config_of(given, key)
    # The protocol's free text: no schema, and no picture.
    config = replace(
        config,
        judge_protocol="opera",
        judge_mode="text",
        temperature=_temperature(sent, config.temperature),
    )
    inputs = MMHalInputs(**take_fields(given, MMHalInputs))
    files = output_files("mmhal_eval", overwrite=inputs.overwrite, json=inputs.json)
    check_outputs(files.values(), read)
    if not inputs.answers:
        raise EvaluationError(
            "no answers: pass --answers with files that have a model_answer for each question, or "
            "with run folders; `python eval/evaluate.py --task mmhal` writes both"
        )
    template = read_template(inputs.template)
    questions, arms = read_arms(inputs.answers, inputs.questions)
    names = [arm.name for arm in arms]
    if inputs.reference is not None and inputs.reference not in names:
        raise EvaluationError(
            f"reference {inputs.reference!r} is unknown: {nearest(inputs.reference, names)}"
        )
    plan = plan_ratings(questions, arms, template, config)
    folder = plan.folder(inputs.output_dir)

    def report(judgements: Judgements) -> None:
        run = RatedRun(config, plan, questions, arms, inputs.reference or names[0], judgements)
        content = judgements.hide_in(metrics(run))
        folder.write(METRICS, content)
        if "json" in files:
            files["json"].write_json(content)
        _show(run)

    asked = JudgingOptions(inputs.dry_run, inputs.ask_again, has_rating)
    judge_all(plan.all, folder, config, key, asked, report)


def _temperature(sent: str | None, of_file: float | None) -> float | None:
    """Return the temperature to send: from the flag, else from the judge's config, else 0.

    Raises:
        EvaluationError: If the flag is not a number.
    """
    if sent is None:
        return 0.0 if of_file is None else of_file
    if sent == NOT_SENT:
        return None
    try:
        value = float(sent)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value >= 0):
        raise EvaluationError(
            f"--temperature {sent!r:.40}: pass a number of at least 0, or {NOT_SENT} to send none"
        )
    return value


def _show(run: RatedRun) -> None:
    """Print the result."""
    hide_in = run.judgements.hide_in
    print(hide_in(headline(run)) + "\n")
    print(hide_in(tables(run)) + "\n")
    print(hide_in(script_table(run)) + "\n")
    for line in hide_in(notes(run)):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False))


if __name__ == "__main__":
    sys.exit(main())
