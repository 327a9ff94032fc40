"""Compare two runs: paired by question if both asked the same, otherwise the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import BASELINE, Answer
from eval.output.layer_summary import layer_summaries
from eval.output.report import Report
from eval.run.recorded import RecordedRun
from eval.stats.grouped import compute_numbers
from eval.tasks.base import Task

FIRST, SECOND = "A:", "B:"
# Settings whose differences are reported. Different questions or pictures rule out pairing.
SETTINGS: Final = ("model", "weights", "protocol", "dtype", "device", "quantization", "decoding")


def why_unpaired(first: RecordedRun, second: RecordedRun) -> str | None:
    """Return why two runs' answers can't be compared question by question; None if they can."""
    one, two = (_questions_by_key(run) for run in (first, second))
    if one != two:
        only = sum(key not in two or two[key] != asked for key, asked in one.items())
        return (
            f"the questions differ: {only} of A's {len(one)} are not among B's {len(two)} in the "
            "same form; ask both models the same questions"
        )
    # Saved answers do not record their pictures.
    runs = [run for run in (first, second) if not (run.old or run.saved)]
    hashes = {run.settings.get("pictures") for run in runs}
    if len(hashes) > 1:
        return "the pictures have the same names but different contents"
    return None


def setting_notes(first: RecordedRun, second: RecordedRun) -> list[str]:
    """Return the paths of two runs and the settings in which they differ, one line each."""
    lines = [f"{FIRST} {first.path}", f"{SECOND} {second.path}"]
    for name in SETTINGS:
        one, two = (run.settings.get(name) for run in (first, second))
        if one != two:
            lines.append(f"{name}: {_describe_difference(one, two)}")
    codes = [{str(arm.info.get("code")) for arm in run.arms.values()} for run in (first, second)]
    if codes[0] != codes[1] and not (first.saved or second.saved):
        lines.append("the answers come from different code versions (see arm.json of each arm)")
    return lines


def compare_runs(
    task: Task, first: RecordedRun, second: RecordedRun, reference: str | None
) -> Report:
    """Return the numbers of both runs' arms, paired.

    Each arm is compared with the reference. Without one, B's arms are compared with A's arms of the
    same name, and the others with A's baseline.

    Args:
        task: The benchmark.
        first: Run A.
        second: Run B, which asked the same questions.
        reference: Arm that all others are compared with, such as "eah" or "B:eah".
    Raises:
        EvaluationError: If the reference is not one of the arms.
    """
    arms: dict[str, Sequence[Answer]] = {}
    for mark, run in ((FIRST, first), (SECOND, second)):
        arms |= {f"{mark}{name}": answers for name, answers in run.answers().items()}
    against = _references(list(arms), reference)
    layers = {name: layer_summaries(answers) for name, answers in arms.items()}
    appendix = task.appendix(arms, against)
    return Report(task, arms, compute_numbers(task, arms, against), "", {}, layers, appendix)


def _references(arms: Sequence[str], reference: str | None) -> Mapping[str, list[str]]:
    if reference is not None:
        named = [
            name for name in (reference, FIRST + reference, SECOND + reference) if name in arms
        ]
        if not named:
            raise EvaluationError(
                f"--reference {reference} is an arm of neither run ({', '.join(arms)}); name one"
            )
        return {arm: named[:1] for arm in arms if arm != named[0]}
    found = {}
    for arm in arms:
        twin = FIRST + arm.removeprefix(SECOND)
        other = twin if arm.startswith(SECOND) and twin in arms else FIRST + BASELINE
        if other in arms and other != arm:
            found[arm] = [other]
    return found


def _questions_by_key(run: RecordedRun) -> dict[Any, tuple[str, str, str]]:
    some = next(iter(run.answers().values()))
    return {a.item.key: (a.item.image, a.item.question, a.item.label) for a in some}


def _describe_difference(one: Any, two: Any) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
        return ", ".join(f"{name} {one.get(name)} | {two.get(name)}" for name in names)
    return f"{one} | {two}"
