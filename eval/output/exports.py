"""Export a run's numbers and answers in the formats of other tools."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from eval.files.answers import Answer
from eval.files.storage import dump_lines
from eval.output.run_page import MARK, run_page
from eval.output.tables import result_table

if TYPE_CHECKING:
    from eval.output.report import Report
    from eval.run.recorded import RecordedRun

LATEX_MARK: Final = "% written by EAH runs"
CSV_MARK: Final = "arm,part,n,"  # followed by the metrics
Export = Callable[["RecordedRun", "Report"], str]


def results_csv(report: Report) -> str:
    """Return all results as CSV: arm, part, n, then value, low and high of each metric."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [metric.name for metric in report.task.metrics]
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(["arm", "part", "n", *ends])
    for result in report.grouped.results:
        numbers = [result.numbers[name].as_dict() for name in names]
        values = [number[end] for number in numbers for end in ("value", "low", "high")]
        writer.writerow([result.arm, result.part, result.answers, *values])
    return file.getvalue()


def results_latex(report: Report) -> str:
    """Return the result table as a LaTeX table that uses booktabs."""
    header, rows = result_table(report)
    kinds = "".join("l" if name in ("arm", "part") else "r" for name in header)
    lines = [" & ".join(map(_escape, cells)) + r" \\" for cells in (header, *rows)]
    return "\n".join(
        [LATEX_MARK, rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", lines[0], r"\midrule",
         *lines[1:], r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip


def answers_llava(run: RecordedRun, report: Report) -> str:
    """Return all answers as LLaVA's model_vqa_loader.py writes them, one JSON object per line.

    Ids are those of the questions, prefixed with the part if there are several parts.
    """
    return dump_lines(
        {
            "question_id": _id(report, answer),
            "prompt": answer.item.question,
            "text": answer.text,
            "answer_id": f"{run.hash}/{arm}/{_id(report, answer)}",
            "model_id": f"{run.settings['model']}/{arm}",
            "metadata": {"image": answer.item.image, "category": answer.item.part},
        }
        for arm, answer in _answers(report)
    )


def answers_lmms_eval(run: RecordedRun, report: Report) -> str:
    """Return all answers as a samples file of lmms-eval, one JSON object per line.

    `doc_id` is the index of the question, the same in all arms. As in files of lmms-eval 0.7,
    `resps` is left out if it is equal to `filtered_resps`. `doc` is added; it has the question id.
    """
    return dump_lines(
        {
            "doc_id": number,
            "doc": {
                "question_id": answer.item.id,
                "question": answer.item.question,
                "answer": answer.item.label,
                "category": answer.item.part,
                "image_source": answer.item.image,
            },
            "input": answer.item.question,
            "target": answer.item.label,
            "filtered_resps": answer.text,
            "model": f"{run.settings['model']}/{arm}",
            f"{run.task}_accuracy": _score(report, answer),
            "score": _score(report, answer),  # read by lmms-eval's --baseline
        }
        for arm, answers in report.arms.items()
        for number, answer in enumerate(answers)
    )


def _score(report: Report, answer: Answer) -> float | None:
    right = report.task.right(answer)
    return None if right is None else float(right)


def _answers(report: Report) -> Iterator[tuple[str, Answer]]:
    for arm, answers in report.arms.items():
        for answer in answers:
            yield arm, answer


def _id(report: Report, answer: Answer) -> int | str:
    parts = {result.part for result in report.grouped.results if not result.is_total}
    return answer.item.id if len(parts) == 1 else f"{answer.item.part}/{answer.item.id}"


def _escape(text: str) -> str:
    """Return the text of a cell with LaTeX's special characters escaped."""
    for sign in "&%_#$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("..", " to ")


def _json(run: RecordedRun, report: Report) -> str:
    content: Mapping[str, Any] = {"run": run.path.name, "settings": run.settings}
    return json.dumps({**content, **report.as_dict()}, indent=1, ensure_ascii=False) + "\n"


# Markers of files that this project wrote; the other formats belong to other tools and have none.
MARKS: Final = {"csv": CSV_MARK, "latex": LATEX_MARK, "html": MARK}
FORMATS: Final[dict[str, Export]] = {
    "csv": lambda _, report: results_csv(report),
    "latex": lambda _, report: results_latex(report),
    "llava": answers_llava,
    "lmms-eval": answers_lmms_eval,
    "json": _json,
    "html": run_page,
}
