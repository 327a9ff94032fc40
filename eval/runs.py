"""List, show, compare, rescore and export runs; no model is loaded.

    python eval/runs.py list
    python eval/runs.py compare 7c1f0a2e runs/pope/llava-1.5/opera-random-91d0c3aa
    python eval/runs.py export 7c1f0a2e --format latex

A run is given by its folder, or by the first characters of the hash at the end of its name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from eah.errors import nearest
from eval.command import finish
from eval.errors import EvaluationError
from eval.evaluate import task_class
from eval.output.comparison import compare_runs, setting_notes, why_unpaired
from eval.output.exports import FORMATS, MARKS
from eval.output.run_report import (
    check_asked,
    facts_of,
    headline,
    relabelled_report,
    score,
    task_of,
)
from eval.output.table import fit
from eval.run.flag_parser import FlagParser
from eval.run.folder import SINKS
from eval.run.outputs import check_outputs, output_files, paths_in
from eval.run.recorded import RecordedRun, find_run, runs_below
from eval.run.records import JUDGE
from eval.tasks.base import Task
from models.errors import ModelError

RUNS: Final = Path("runs")


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The text that an action prints, and the content that it writes to --json."""

    text: str
    content: dict[str, Any]


def list_runs(given: dict[str, Any]) -> ActionResult:
    """Return all runs below a folder."""
    folder = given.get("folder") or given.get("runs_dir", RUNS)
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder; pass the folder of the runs")
    runs = list(runs_below(folder, lambda error: print(f"note: {error}", file=sys.stderr)))
    rows = []
    for run in runs:
        if run.task == SINKS:
            rows.append([f"{_run_label(run)} observations", "-", "see its page", run.begun[:10]])
        if run.task == JUDGE:
            rows.append([f"{_run_label(run)} replies", "-", "see its report", run.begun[:10]])
        for name, arm in run.arms.items():
            state = "finished" if len(arm.answers) == run.total else "unfinished"
            date = str(arm.info.get("started", run.begun))[:10]
            answered = f"{len(arm.answers)} of {run.total}"
            rows.append([f"{_run_label(run)} {name}", answered, state, date])
    header = ["run and arm", "answers", "state", "begun"]
    text = fit(header, rows) if rows else f"no runs in {folder}"
    return ActionResult(text, {"runs": [_summary(run) for run in runs]})


def show(given: dict[str, Any]) -> ActionResult:
    """Return a run's settings and results."""
    run = _find(given["run"], given)
    lines = [f"{name}: {_format_setting(value)}" for name, value in run.settings.items()
             if name not in ("questions", "images")]  # fmt: skip
    scored = rescore(given)
    return replace(scored, text="\n".join([*lines, f"questions: {run.total}", "", scored.text]))


def rescore(given: dict[str, Any]) -> ActionResult:
    """Compute a run's numbers again from its answers."""
    run = _find(given["run"], given)
    task = _task(run, given)
    reference, wide = given.get("reference"), given.get("wide", False)
    report = score(task, run, reference)
    beside = relabelled_report(task, report.arms, reference=reference, wide=wide)
    notes = task.notes(report.arms)
    texts = [headline(task, run), report.text(wide=wide), *notes, beside.text]
    unfinished = [name for name in run.arms if name not in run.finished()]
    if unfinished:
        texts.append(f"unfinished, not in these numbers: {', '.join(unfinished)}")
    content = {**facts_of(run), **report.as_dict(), **beside.content}
    return ActionResult("\n\n".join(text for text in texts if text), content)


def compare(given: dict[str, Any]) -> ActionResult:
    """Return the numbers of two runs, paired if they asked the same questions."""
    first, second = (_find(given[name], given) for name in ("first", "second"))
    if first.task != second.task:
        raise EvaluationError(
            f"A is a run of {first.task} and B of {second.task}; pass two runs of one benchmark"
        )
    task, reference, wide = _task(first, given), given.get("reference"), given.get("wide", False)
    texts = ["\n".join(setting_notes(first, second))]
    for run in (first, second):
        check_asked(_task(run, given), run)
    if (reason := why_unpaired(first, second)) is None:
        report = compare_runs(task, first, second, reference)
        texts += [report.text(wide=wide), *task.notes(report.arms)]
        return ActionResult("\n\n".join(texts), report.as_dict())
    reports = {name: score(task, run, reference) for name, run in (("A", first), ("B", second))}
    texts.append(f"not paired: {reason}")
    for name, report in reports.items():
        texts += [f"{name}:", report.text(wide=wide), *task.notes(report.arms)]
    numbers = {name: report.as_dict() for name, report in reports.items()}
    return ActionResult("\n\n".join(texts), {"unpaired": reason, **numbers})


def export(given: dict[str, Any]) -> ActionResult:
    """Return a run's numbers or answers in the format of another tool."""
    run = _find(given["run"], given)
    chosen = given.get("format", "csv")
    if chosen not in FORMATS:
        raise EvaluationError(f"format {chosen!r} is unknown: {nearest(chosen, FORMATS)}")
    report = score(_task(run, given), run, given.get("reference"))
    return ActionResult(FORMATS[chosen](run, report), {**facts_of(run), **report.as_dict()})


ACTIONS: Final[dict[str, tuple[Callable[[dict[str, Any]], ActionResult], Sequence[str], str]]] = {
    "list": (list_runs, (), "list all runs below a folder: python eval/runs.py list [FOLDER]"),
    "show": (show, ("run",), "print settings and numbers of a run: python eval/runs.py show RUN"),
    "compare": (compare, ("first", "second"), "compare two runs: python eval/runs.py compare A B"),
    "rescore": (
        rescore,
        ("run",),
        "compute numbers again: python eval/runs.py rescore RUN --parser strict",
    ),
    "export": (
        export,
        ("run",),
        "convert for other tools: python eval/runs.py export RUN --format latex",
    ),
}


def parser(action: str) -> FlagParser:
    """Return the flags of an action."""
    _, names, usage = ACTIONS[action]
    what, _, example = usage.partition(": ")
    flags = FlagParser(f"{action}: {what}.\n\n    {example}\n\n")
    for name in names:
        flags.add_argument(name, metavar="RUN")
    if action == "list":
        # The parser's own default, SUPPRESS, would be made a path.
        flags.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=None)
    flags.flag("--runs-dir", type=Path, help="folder to find hashes in (default: runs)")
    flags.flag(
        "--json", type=Path, metavar="FILE", group="output", help="write all results to this file"
    )
    flags.overwrite_flag()
    if action != "list":
        flags.flag("--parser", help="how answers are parsed (default: the protocol's)")
        flags.flag("--questions", type=Path, help="AMBER captions: folder (default: data/AMBER)")
        flags.flag("--similar", type=Path, help="AMBER captions: similar words (default: none)")
        flags.flag("--verdicts", type=Path, help="HallusionBench: a judge's verdicts file")
        flags.flag("--reference", metavar="ARM", help="arm to compare with (default: baseline)")
        flags.flag("--wide", action="store_true", group="output", help="print all metrics")
    if action in ("show", "rescore"):
        flags.flag("--labels", metavar="NAME", help="also score corrected labels: repope")
        flags.flag(
            "--labels-path", type=Path, help="folder of --labels (default: data/COCO/repope)"
        )
    if action == "export":
        flags.flag("--format", help=f"{', '.join(FORMATS)} (default: csv)")
        flags.flag("--output", type=Path, metavar="FILE", help="file to write (default: stdout)")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    action, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    return finish("runs", lambda: _act(action, rest), ModelError)


def _act(action: str, rest: list[str]) -> None:
    """Run the action that the first argument names."""
    if action in ("-h", "--help"):
        print(__doc__)
        print("\n".join(f"{name:8} {usage}" for name, (_, _, usage) in ACTIONS.items()))
    elif action in ACTIONS:
        _run(action, parser(action).parse(rest))
    else:
        raise EvaluationError(f"action {action!r} is unknown: {nearest(action, ACTIONS)}")


def _run(action: str, given: dict[str, Any]) -> None:
    """Run one action, write the requested files, and print the text unless --output has it."""
    names, overwrite = ("json", "output"), given.pop("overwrite", False)
    files = output_files("runs", overwrite=overwrite, **{name: given.get(name) for name in names})
    if "output" in files:
        files["output"] = replace(files["output"], mark=MARKS.get(given.get("format", "csv"), ""))
    read = [value for name, value in given.items() if name not in (*names, "runs_dir", "folder")]
    check_outputs(files.values(), [*paths_in(*read), *_labels(given)])
    shown = ACTIONS[action][0](given)
    if "json" in files:
        files["json"].write_json(shown.content)
    if "output" in files:
        files["output"].write_text(shown.text)
    else:
        print(shown.text, end="" if shown.text.endswith("\n") else "\n")


def _labels(given: dict[str, Any]) -> list[Path]:
    """Return the default folder of --labels, an input that no flag names."""
    if "labels" not in given:
        return []
    from eval.tasks.pope.repope import LABELS_FOLDER  # of this one benchmark

    return [LABELS_FOLDER]


def _find(name: str, given: dict[str, Any]) -> RecordedRun:
    run = find_run(name, given.get("runs_dir", RUNS))
    run.check_answered()
    return run


def _task(run: RecordedRun, given: dict[str, Any]) -> Task:
    """Return the benchmark of a run, with the settings that flags give."""
    kind = task_class(run.task)
    values: dict[str, Any] = {"model": run.settings.get("model", "")}
    known = {field.name for field in fields(kind.settings_class)}
    own = {"parser": "parsers", "labels": "other labels", "labels_path": "other labels",
           "questions": "files of AMBER", "similar": "similar words",
           "verdicts": "verdicts of a judge"}  # fmt: skip
    for name in own.keys() & given.keys():
        if name not in known:
            flag = f"--{name.replace('_', '-')} {given[name]}"
            raise EvaluationError(f"{flag}: {run.task} has no {own[name]}; leave it out")
        values[name] = given[name]
    if "verdicts" in values:
        values["answers"] = run.path  # the verdicts are on these
    if "question" in run.settings:
        values["question"] = run.settings["question"]
    return task_of(kind, run, kind.settings_class(**values))


def _format_setting(value: Any) -> str:
    """Return a setting's value as text; the values of a group are listed."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _run_label(run: RecordedRun) -> str:
    """Return the name of a run in lists: benchmark, model and folder name."""
    return f"{run.task}/{run.settings['model']}/{run.path.name}"


def _summary(run: RecordedRun) -> dict[str, Any]:
    arms = {name: {"answers": len(arm.answers), **arm.info} for name, arm in run.arms.items()}
    return {"path": str(run.path), "total": run.total, "settings": run.settings, "arms": arms}


if __name__ == "__main__":
    sys.exit(main())
