"""Run any benchmark by its name.

    python eval/evaluate.py --task mme --model llava-1.5 --data-path MME_Benchmark_release_version

Asks every question under each arm (default: baseline and EAH) and prints one table. All answers are
stored in the run folder that is printed. Rerun the command to resume.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eah.errors import nearest
from eval.command import RUN_ERRORS, finish
from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.files.storage import write_json
from eval.files.writing import write_atomically
from eval.output.repeats import repeats_report
from eval.output.report import reference_arms
from eval.output.run_report import (
    facts_of,
    headline,
    report_run,
    task_of,
    write_run_report,
)
from eval.output.table import fit
from eval.run.arms import arms_of, reference_of
from eval.run.flags import Parser, resolve
from eval.run.folder import METRICS
from eval.run.outputs import check_outputs, json_file, paths_in
from eval.run.recorded import RecordedRun, read_run
from eval.run.repeats import check_repeats_differ, check_seed, settings_by_repeat
from eval.run.saved import record_saved
from eval.run.settings import RunSettings
from eval.tasks.base import TASKS, Task, check_pictures_exist, skip_unreadable
from models.settings import PARTS

if TYPE_CHECKING:
    from eval.run.answering import Loader

# Settings that also apply to saved answers; the others affect how a model is asked.
SCORING_SETTINGS: Final = (
    "model", "data_path", "limit", "seed", "output_dir", "reference", "wide", "json",
)  # fmt: skip
EXAMPLE: Final = "mme --model llava-1.5 --data-path MME_Benchmark_release_version"  # in the help
# Flags for the same thing that have different names in different benchmarks.
EQUIVALENT: Final = {
    "--part": "--pope-type", "--pope-type": "--part",
    "--questions": "--pope-path", "--pope-path": "--questions",
}  # fmt: skip
FLAG_NAMES: Final = {"prefix_reuse": "no_prefix_reuse", "sink_threshold": "THRES"}


def task_class(name: str) -> type[Task]:
    """Return a benchmark by its name.

    Raises:
        EvaluationError: If it is unknown.
    """
    if name not in TASKS:
        longer = [known for known in TASKS if name and known.startswith(f"{name}-")]
        hint = f"known are {', '.join(longer)}" if longer else nearest(name, TASKS)
        raise EvaluationError(f"task {name!r} is unknown: {hint}")
    module, _, attribute = TASKS[name].rpartition(".")
    found: type[Task] = getattr(importlib.import_module(module), attribute)
    return found


def task_main(name: str, documentation: str, arguments: Sequence[str] | None) -> int:
    """Run the command of one benchmark and return its exit status.

    Args:
        name: The benchmark.
        documentation: The command's docstring, for its help.
        arguments: The command line; None for that of this process.
    """
    task = task_class(name)
    return finish(
        f"{name}_eval",
        lambda: evaluate(task, settings_of(task, parser_of(task, documentation), arguments)),
        *RUN_ERRORS,
    )


def parser_of(task: type[Task], documentation: str) -> Parser:
    """Return the flags of a benchmark's command."""
    flags = Parser(documentation)
    task.add_flags(flags)
    return flags


def settings_of(task: type[Task], flags: Parser, arguments: Sequence[str] | None) -> RunSettings:
    """Return the settings that a command line gives."""
    given = flags.parse(arguments)
    config = given.get("config")
    settings = resolve(task.settings_class(), given)
    check_seed(settings, given)
    check_outputs(json_file(task.name, settings), [*inputs_of(settings), *paths_in(config)])
    return settings


def inputs_of(settings: RunSettings) -> list[Path]:
    """Return the input files and folders that settings name."""
    read = {field.name: getattr(settings, field.name) for field in fields(settings)}
    of_model = [Path(text) for name in ("checkpoint", "converted", *PARTS) if (text := read[name])]
    written = ("json", "output_dir", "report")
    return [*of_model, *paths_in(*(value for name, value in read.items() if name not in written))]


def evaluate(kind: type[Task], settings: RunSettings) -> None:
    """Read the questions, get answers from a model or a file, score and print."""
    task = kind(settings)
    if (saved := task.answers_path()) is not None:
        _check_no_model_is_asked(settings)
        report_saved(task, saved)
        return
    check_outputs(json_file(kind.name, settings), task.input_paths())
    items = task.items()
    if settings.repeats > 1:
        evaluate_repeats(task, items)
        return
    run = ask(task, *check_pictures(settings, items, kind))
    if run is not None:
        report_run(kind, run, settings)


def check_pictures(
    settings: RunSettings, items: list[Item], kind: type[Task] = Task
) -> tuple[list[Item], list[str]]:
    """Return the questions to ask, and the unreadable pictures that are skipped."""
    folder = settings.pictures_folder(kind.pictures)
    check_pictures_exist(folder, items, kind)
    if settings.skip_unreadable:
        return skip_unreadable(folder, items)
    return items, []


def evaluate_repeats(task: Task, items: list[Item]) -> None:
    """Get the answers of all repeats, loading the model once, then score and print.

    Args:
        task: The benchmark, with `repeats` in its settings.
        items: Its questions, the same for all repeats unless the seed chooses the pictures.
    """
    from eval.run.answering import load_once

    kind, settings = type(task), task.settings
    each = settings_by_repeat(settings)
    asked = [kind(one).items() if kind.draws_pictures else items for one in each]
    check_repeats_differ(each, asked)
    load, runs = load_once(), []
    for one, of in zip(each, asked, strict=True):
        print(f"repeat {one.seed + 1} of {len(each)}, seed {one.seed}", file=sys.stderr)
        if (run := ask(kind(one), *check_pictures(one, of, kind), load)) is not None:
            write_run_report(kind, run, one)
            runs.append(run)
    if not runs:  # --dry-run
        return
    # A repeat's seed is in the names of arms that draw noise; the table has them without.
    names = [arm.name for arm in arms_of(settings)]
    scored = task_of(kind, runs[0], settings)
    report = repeats_report(scored, runs, names, reference_of(settings))
    text = f"{headline(scored, runs[0])}\n\n{report.text(wide=settings.wide)}"
    content = {**facts_of(runs[0]), **report.as_dict()}
    del content["run"]
    write_json(report.folder / METRICS, content)
    write_atomically(report.folder / "table.md", text + "\n")
    for file in json_file(kind.name, settings):
        file.write_json(content)
    print(f"{text}\n" + "\n".join(f"run folder: {path}" for path in _paths(runs)))
    print(f"report of all repeats: {report.folder}")


def _paths(runs: Sequence[RecordedRun]) -> list[Path]:
    """Return the folders of runs; repeats that differ only in an arm's seed share one."""
    return list(dict.fromkeys(run.path for run in runs))


def report_saved(task: Task, saved: Path) -> None:
    """Score saved answers: a run folder in place, a file after copying it to a new run folder.

    Raises:
        EvaluationError: If they are for another benchmark, or don't match the questions.
    """
    settings, facts = task.settings, None
    if saved.is_dir():
        run = read_run(saved)
        run.check_answered()
        if run.task != task.name:
            raise EvaluationError(
                f"{saved} has answers to {run.task}, not to {task.name}; pass --task {run.task} "
                "to eval/evaluate.py"
            )
        task.check_run(run)
        facts = {"layout": "run folder, version 0.1" if run.old else "run folder"}
        for name in (name for name in run.arms if name not in run.finished()):
            print(
                f"note: arm {name} is unfinished, so it is left out of these numbers",
                file=sys.stderr,
            )
    else:
        check_outputs(json_file(task.name, settings), task.input_paths())
        answers = task.read_saved(saved, task.items())
        items = answers.asked()
        label = task.label(items)
        folder = record_saved(answers, settings.output_dir, task.name, label, items)
        run = read_run(folder, list(answers.arms))
    report_run(type(task), run, settings, facts)


def _check_no_model_is_asked(settings: RunSettings) -> None:
    """Refuse settings for asking a model if --answers gives the answers.

    Raises:
        EvaluationError: Naming the first such setting.
    """
    for field in fields(RunSettings):
        if field.name not in SCORING_SETTINGS and getattr(settings, field.name) != field.default:
            raise EvaluationError(
                f"--{FLAG_NAMES.get(field.name, field.name).replace('_', '-')} affects how a "
                "model is asked, but --answers gives the answers; leave one of them out"
            )


def ask(
    task: Task, items: Sequence[Item], left_out: Sequence[str] = (), load: Loader | None = None
) -> RecordedRun | None:
    """Ask the model the questions that are not answered yet.

    Args:
        task: The benchmark.
        items: Its questions.
        left_out: Unreadable pictures that were skipped.
        load: See `answer_all`.
    Returns:
        The run with the requested arms; None if another process reports it, or after `--dry-run`.
    """
    # Imported late: this loads torch, which takes seconds; errors above are reported first.
    from eval.run.answering import answer_all, first_prompt
    from eval.run.session import describe, plan_session, show_prompt

    if (named := reference_of(task.settings)) is not None:
        # Raises for an unknown reference now, not after the last answer.
        reference_arms([arm.name for arm in arms_of(task.settings)], named)
    described = describe(task.settings)
    protocol = type(task).protocol_of(described.protocol, described.family)
    session = plan_session(type(task)(task.settings, protocol), items, described, left_out)
    if task.settings.dry_run:
        total = len(session.plan.prompts)
        print(f"run folder: {session.folder.path}\nquestions: {total}")
        prompt = first_prompt(session, lambda *asked: show_prompt(session, *asked))
        print(f"first prompt: {prompt.text!r}\nits ids: {prompt.short_ids()}\n")
        rows = [[name, str(done), str(total - done)] for name, done in session.status()]
        print(fit(["arm", "answered", "to ask"], rows))
        return None
    with session.folder:
        if not answer_all(session, load):
            return None
    return read_run(session.folder.path, [arm.name for arm in session.plan.arms])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _pop_flag(given, "--task")
    documentation = __doc__ or ""
    return finish("evaluate", lambda: _evaluate_task(name, documentation, given), *RUN_ERRORS)


def _evaluate_task(name: str | None, documentation: str, given: Sequence[str]) -> None:
    """Run a benchmark by its name; without one, the error or help lists the benchmarks."""
    if name is None:
        flags = Parser(documentation)
        flags.flag("--task", required=True, help=f"the benchmark: {', '.join(TASKS)}")
        flags.parse(given)
        return
    kind = task_class(name)
    flags = parser_of(
        kind,
        documentation.replace(EXAMPLE, f"{name} --model llava-1.5 \\\n        {kind.example()}"),
    )
    flags.describe_foreign = lambda flag: _describe_foreign_flag(flag, kind, flags)
    evaluate(kind, settings_of(kind, flags, given))


def _describe_foreign_flag(flag: str, kind: type[Task], flags: Parser) -> str:
    """Return which benchmarks have a flag, and this one's equivalent; empty if none has it."""
    names = [name for name in TASKS if parser_of(task_class(name), "").knows(flag)]
    if not names:
        return ""
    instead = EQUIVALENT.get(flag.replace("_", "-"))
    hint = f"{kind.name} has {instead}; " if instead and flags.knows(instead) else ""
    return f"{flag} is not a flag of {kind.name}, but of {', '.join(names)}; {hint}"


def _pop_flag(arguments: list[str], flag: str) -> str | None:
    """Remove a flag from a command line and return its value; None if it is absent."""
    for at, argument in enumerate(arguments):
        if argument == flag and at + 1 < len(arguments):
            del arguments[at]
            return arguments.pop(at)
        if argument.startswith(f"{flag}="):
            return arguments.pop(at).partition("=")[2]
    return None


if __name__ == "__main__":
    sys.exit(main())
