"""Score a run folder, print its report and write it next to the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Answer
from eval.files.saved import NO_MODEL
from eval.files.storage import write_json
from eval.files.writing import write_atomically
from eval.output.exports import results_csv
from eval.output.published import published_table
from eval.output.report import Report, report_of
from eval.output.table import fit, render
from eval.output.tables import result_table, wide_table
from eval.run.arms import reference_of
from eval.run.folder import METRICS, REPORT, RUN
from eval.run.outputs import json_file
from eval.run.question_check import check_questions
from eval.run.recorded import RecordedRun
from eval.run.settings import RunSettings
from eval.tasks.base import Appendix, Task
from models.errors import printable

# Entries of a report that do not depend on the labels.
SAME: Final = ("benchmark", "costs", "eah", "parser_disagreement")


def report_run(
    kind: type[Task],
    run: RecordedRun,
    settings: RunSettings,
    saved: Mapping[str, Any] | None = None,
) -> None:
    """Score a run's answers, write its report and print it, see `write_run_report`."""
    layout = "" if saved is None else f"layout: {saved['layout']}\n"
    print(f"{write_run_report(kind, run, settings, saved)}\n{layout}run folder: {run.path}")


def write_run_report(
    kind: type[Task],
    run: RecordedRun,
    settings: RunSettings,
    saved: Mapping[str, Any] | None = None,
) -> str:
    """Score a run's answers and write its report.

    Args:
        kind: The benchmark.
        run: The run; nothing is written to a run of version 0.1.
        settings: Settings of the command.
        saved: Facts about the file of `--answers`, for `--json`; None if run.json has them.
    Returns:
        The text to print.
    """
    task = task_of(kind, run, settings)
    # The arms of saved answers may be called anything.
    reference = reference_of(settings) if task.answers_path() is None else settings.reference
    report = score(task, run, reference)
    relabelled = relabelled_report(task, report.arms, reference=reference, wide=settings.wide)
    folder = run.path / REPORT
    appendix = Appendix() if run.old else task.write_files(folder, report.arms)
    notes = task.notes(report.arms)
    texts = [headline(task, run), report.text(wide=settings.wide), *notes, relabelled.text]
    texts.append(appendix.text)
    if task.published:
        texts.append(published_table(task.name, run.settings["model"]))
    text = "\n\n".join(part for part in texts if part)
    content = {**facts_of(run), **report.as_dict(), **relabelled.content, **appendix.content}
    if not run.old:
        write_json(folder / METRICS, content)
        write_atomically(folder / "table.md", text + "\n")
        write_atomically(folder / "table.csv", results_csv(report))
    for file in json_file(kind.name, settings):
        file.write_json(content if saved is None else {**content, "answers": saved})
    return text


def relabelled_report(
    task: Task, arms: Mapping[str, Sequence[Answer]], *, reference: str | None, wide: bool
) -> Appendix:
    """Return the table and numbers under the labels that the settings name; empty without any.

    Args:
        task: The benchmark.
        arms: Answers by arm, with the original labels.
        reference: Arm that the others are compared with; None for the baseline.
        wide: Print all metrics.
    Raises:
        EvaluationError: If the labels can't be read, or no question has one.
    """
    found = task.relabel(arms)
    if found is None:
        return Appendix()
    report = report_of(task, found.arms, reference=reference)
    header, rows = wide_table(report) if wide else result_table(report)
    table = render(header, rows) if wide else fit(header, rows, names=list(found.arms), keys=2)
    numbers = {name: of for name, of in report.as_dict().items() if name not in SAME}
    text = f"{found.title}\n\n{table}\n\n" + "\n".join(found.notes)
    return Appendix(text, {found.name: {**numbers, **found.content}})


def score(task: Task, run: RecordedRun, reference: str | None) -> Report:
    """Compute all numbers of a run's finished arms.

    Raises:
        EvaluationError: If no arm is finished, or questions, pictures or labels were changed.
    """
    check_asked(task, run)
    costs = {name: arm.costs for name, arm in run.arms.items()}
    return report_of(task, run.answers(), reference=reference, costs=None if run.saved else costs)


def check_asked(task: Task, run: RecordedRun) -> None:
    """Check that a run's answers still have the questions that were asked.

    Raises:
        EvaluationError: If their questions, pictures or labels were changed.
    """
    protocol = None if run.saved else task.protocol
    check_questions(
        run, lambda item: item.question if protocol is None else task.prompt(item, protocol)
    )


def facts_of(run: RecordedRun) -> dict[str, Any]:
    """Return what a run's numbers depend on, for a JSON file."""
    names = ("model", "weights", "protocol", "dtype", "decoding", "questions")
    saved = {"answers": run.settings["answers"]} if run.saved else {}
    if left_out := run.settings.get("left_out"):
        saved["left_out"] = left_out
    return {"run": run.path.name, **{name: run.settings.get(name) for name in names}, **saved}


def task_of(kind: type[Task], run: RecordedRun, settings: RunSettings) -> Task:
    """Return a benchmark with the protocol of a run, to score its answers.

    Raises:
        EvaluationError: If run.json lacks a setting of how the answers were made, or the settings
            do not name what they were scored with.
    """
    recorded = run.settings
    if run.saved and "protocol" not in recorded:
        task = kind(settings)
        task.check_scored(run)
        return task
    needed = () if run.saved else ("model", "dtype", "device", "decoding")
    for name in ("family", "protocol", *needed):
        if name not in recorded:
            raise EvaluationError(f"{run.path / RUN} is damaged: it has no {name}")
    return kind(settings, kind.protocol_of(recorded["protocol"], recorded["family"]))


def headline(task: Task, run: RecordedRun) -> str:
    """Return in one or two lines what was run and how."""
    settings = run.settings
    if run.saved:
        saved = settings["answers"]
        model = "" if settings["model"] == NO_MODEL else f"{settings['model']}, "
        return (
            f"{task.title}, {model}saved answers of {saved.get('file')}\n"
            f"{_facts(task)}layout: {saved.get('layout')}"
        )
    decoding = settings["decoding"]
    how = "nucleus sampling" if decoding["do_sample"] else f"{decoding['num_beams']} beam(s)"
    how = f"{how}, at most {decoding['max_new_tokens']} tokens"
    facts = _facts(task)
    if "scoring" in settings:  # no text was generated
        facts, how = "", f"scoring by {settings['scoring']} of the first token"
    return (
        f"{task.title}, {settings['model']} ({settings['dtype']}, {settings['device']}), protocol "
        f"{settings['protocol']},\n{facts}{how}{_left_out(settings)}"
    )


def _left_out(settings: Mapping[str, Any]) -> str:
    """Return a line about the pictures that could not be read; empty if all could."""
    names = settings.get("left_out")
    if not names:
        return ""
    return (
        f"\nleft out: {len(names)} picture(s) that can't be read, with their questions: "
        f"{printable(some_ids(names))}"
    )


def _facts(task: Task) -> str:
    shown = {name: f"{value!r}" if " " in value else value for name, value in task.facts().items()}
    return "".join(f"{name} {value}, " for name, value in shown.items())
