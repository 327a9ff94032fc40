"""The numbers of the same answers under corrected labels, beside those of the original ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eval.files.answers import Answer
from eval.output.report import report_of
from eval.output.table import fit, render
from eval.output.tables import result_table, wide_table
from eval.tasks.base import Appendix, Task

# What does not depend on the labels.
SAME: Final = ("benchmark", "costs", "eah", "parser_disagreement")


def relabelled_report(
    task: Task, arms: Mapping[str, Sequence[Answer]], *, reference: str | None, wide: bool
) -> Appendix:
    """Return table and numbers under the labels that the settings name; empty for none.

    Args:
        task: The benchmark.
        arms: Answers by arm, with the original labels.
        reference: Arm that the others are compared with; None for the baseline.
        wide: Print all metrics.
    Raises:
        EvaluationError: If the labels can't be read, or no question has one.
    """
    found = task.relabelled(arms)
    if found is None:
        return Appendix()
    report = report_of(task, found.arms, reference=reference)
    header, rows = wide_table(report) if wide else result_table(report)
    table = render(header, rows) if wide else fit(header, rows, names=list(found.arms), keys=2)
    numbers = {name: of for name, of in report.as_dict().items() if name not in SAME}
    text = f"{found.title}\n\n{table}\n\n" + "\n".join(found.notes)
    return Appendix(text, {found.name: {**numbers, **found.content}})
