"""Have answers to MMHal-Bench rated by a judge, from 0 to 6.

    python eval/mmhal_eval.py --answers baseline.json eah.json --template eval_gpt_mmhal.py

The answers are files in the benchmark's layout, or run folders of `eval/evaluate.py --task mmhal`
together with `--questions response_template.json`. The judge reads labels, question, reference
answer and response, and sees no picture. Rerun the command to resume: nothing that was answered is
asked or paid again.
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
from eval.run.processes import this_place
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
    """What a judging run is told by flags, besides who judges.

    Attributes:
        answers: Files and run folders.
        questions: The question file; None for the questions of the first file.
        template: The judge's prompt.
        reference: Arm that the others are compared with; None for the first.
        temperature: A number, or "none" to send none; None for that of the judge's file, else 0.
        output_dir: Folder that run folders are made in.
        api_key_file: File with the key; None for OPENAI_API_KEY.
        ask_again: Ask again what was refused or rejected, and replies that can't be read.
        dry_run: Say what would be sent, and send nothing.
        json: File for all results.
        overwrite: Let it replace a file that this command did not write.
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
    flag("--questions", type=Path, metavar="FILE", help="response_template.json (the first file)")
    flag("--template", type=Path, metavar="FILE", help="the judge's prompt: eval_gpt_mmhal.py, or "
         "a text with four {}: labels, question, reference answer, response")  # fmt: skip
    flag("--reference", metavar="ARM", help="compare with this (the first)")
    add_judge_flags(flags)
    flag("--temperature", metavar="X", help=f"sent to the judge; {NOT_SENT} sends none (0)")
    flag("--ask-again", action="store_true", help="ask again what was refused or rejected, and "
         "replies that can't be read")  # fmt: skip
    flag("--dry-run", action="store_true", group="running", help="say what would be asked; stop")
    flag("--output-dir", type=Path, group="output", help="where run folders are made (runs)")
    flag("--json", type=Path, metavar="FILE", group="output", help="write all results here, too")
    flags.overwrite_flag()
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish(
        "mmhal_eval", lambda: run_with_key(parser().parse(arguments), evaluate), *RUN_ERRORS
    )


def evaluate(given: dict[str, Any], key: Key | EvaluationError) -> None:
    """Read the answers, have them rated, and say what came of it.

    Raises:
        EvaluationError: If something is missing or not allowed, or ratings stay open.
    """
    if not this_place().is_alone:
        raise EvaluationError("a judge is asked by one process; start this command once")
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
            "no answers: pass --answers with files that hold model_answer beside each question, or "
            "run folders; `python eval/evaluate.py --task mmhal` makes both"
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
    """Return what is sent as temperature: the flag's, else the judge's file's, else 0.

    Raises:
        EvaluationError: If the flag is no number.
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
            f"--temperature {sent!r:.40}: a number from 0 on, or {NOT_SENT} to send none"
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
