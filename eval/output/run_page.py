"""A run's numbers as one HTML page: what differs, all arms by part, settings, and costs last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from eval.output.contrasts import (
    LEVEL,
    LOWER_HIGHER,
    MANY,
    Contrast,
    ContrastGroup,
    ContrastTable,
    contrast_table,
    finding,
    scaled,
    summaries,
    terms,
)
from eval.output.layer_summary import HEADER
from eval.output.page import page_template, text_blocks, unwrap
from eval.output.tables import cost_table, title
from eval.stats.intervals import NONE, RESAMPLES, Interval, few_pictures_note

if TYPE_CHECKING:
    from eval.output.report import Report
    from eval.run.recorded import RecordedRun
    from eval.stats.grouped import Difference, Result
    from eval.stats.metric import Metric

TEMPLATE: Final = "run_tables.html"
MARK: Final = 'name="generator" content="EAH runs"'
PERMUTATION_TEST: Final = (
    "p",
    "sign-flip permutation test over the pictures, Holm-adjusted for the number of comparisons; "
    f"it must be below {LEVEL}, too, for a difference to be significant",
)
GAINED: Final = (
    "gained, lost",
    "questions that only the first arm, or only the second, gets right",
)
UNTESTED: Final = (
    "Differences without p",
    "of 20 intervals that should include 0, about one excludes it by chance",
)
UNLISTED: Final = ("questions", "images", "pictures")  # settings that are long lists or hashes


def run_page(run: RecordedRun, report: Report) -> str:
    """Return a run's numbers as one self-contained HTML page."""
    grouped = report.grouped
    (_, *header), rows = cost_table(report.costs, report.reference)
    size = len(next(iter(report.arms.values())))
    name, resampled, primary = report.task.title, report.task.resampled, _primary(report)
    return page_template(TEMPLATE).render(
        mark=MARK,
        title=f"{name[:1].upper()}{name[1:]}: {run.settings.get('model', run.path.name)}",
        about=f"{_counted(size, 'question')} about {_counted(grouped.pictures, resampled)}, "
        f"answered by {', '.join(report.arms)}; run {run.path.name}",
        findings=_findings(report),
        primary=primary,
        by_part=_by_part(report),
        terms=_terms(report, primary),
        header=_header(report),
        rows=[_row(report, one) for one in grouped.results],
        notes=_notes(run, report),
        resamples=f"{RESAMPLES:,}",
        further=text_blocks(report.appendix.text),
        layers=(
            ["Arm", *HEADER],
            [[arm, *one.cells()] for arm, of in report.layers.items() for one in of],
        ),
        settings=_settings(run.settings),
        costs=(["Arm", *header], rows),
        reference=report.reference,
        resampled=resampled,
    )


def _findings(report: Report) -> list[str]:
    """Return the primary comparisons in the first metric, or each verdict, as sentences."""
    metric, compared = report.task.metrics[0], report.grouped.primary_differences()
    if len(compared) <= MANY:
        return [_finding(report, one) for one in compared]
    references = {one.reference for one in compared}
    only = next(iter(references)) if len(references) == 1 else ""
    rows = [_contrast(one, metric, name=one.arm if only else _pair(one)) for one in compared]
    return summaries(rows, title(metric) + _in_part(compared[0]), only)


def _finding(report: Report, difference: Difference) -> str:
    """Return a primary comparison in the first metric as a sentence."""
    metric = report.task.metrics[0]
    row = _contrast(difference, metric, name=_pair(difference))
    values = {one.arm: one.numbers[metric.name].value for one in report.grouped.results
              if one.part == difference.part}  # fmt: skip
    arm, reference, name = difference.arm, difference.reference, title(metric)
    name += _in_part(difference)
    unit = " %" if metric.percent else ""
    shown = " against ".join(f"{_number(values[of], metric)}{unit}" for of in (arm, reference))
    return finding(
        row,
        f"{row.verdict.capitalize()} {name} with {arm} than with {reference}",
        f"No difference in {name} can be claimed between {arm} and {reference}",
        shown,
        row.detail,
    )


def _terms(report: Report, shown: ContrastTable) -> list[tuple[str, str]]:
    """Return what the table of differences says."""
    rows = [row for group in shown.groups for row in group.rows]
    found = [PERMUTATION_TEST, GAINED] if any(row.detail for row in rows) else []
    return [*found, UNTESTED, *terms(rows)]


def _primary(report: Report) -> ContrastTable:
    """Return the primary comparisons in all metrics, a row for each pair of arms."""
    compared = report.grouped.primary_differences()
    return _table(report, "Metric", {
        title(metric): [(one, metric) for one in compared]
        for metric in report.task.metrics if not metric.wide
    })  # fmt: skip


def _by_part(report: Report) -> ContrastTable:
    """Return all metrics in the other parts and totals, a row for each pair of arms."""
    others = [one for one in report.grouped.differences if one.part != report.grouped.primary]
    parts = dict.fromkeys(one.part for one in others)
    return _table(report, "Part and metric", {
        f"{part}, {title(metric)}": [(one, metric) for one in others if one.part == part]
        for part in parts for metric in report.task.metrics
    })  # fmt: skip


def _table(
    report: Report, first: str, groups: Mapping[str, Sequence[tuple[Difference, Metric]]]
) -> ContrastTable:
    references = {one.reference for one in report.grouped.differences}
    pairs = {_pair(one) for one in report.grouped.differences}
    only = next(iter(references), "")
    pair = f"Arm minus {only}" if len(references) == 1 else "Difference"
    if len(pairs) == 1:
        (pair,) = pairs

    def name(difference: Difference) -> str:
        return difference.arm if len(references) == 1 else _pair(difference)

    return contrast_table(first, pair, (
        ContrastGroup(
            title_,
            [_contrast(one, metric, name=name(one)) for one, metric in rows],
            "in points" if all(metric.percent for _, metric in rows) else "",
        )
        for title_, rows in groups.items()
    ))  # fmt: skip


def _contrast(difference: Difference, metric: Metric, *, name: str) -> Contrast:
    """Return a difference in one metric; the adjusted test of the first metric decides, too."""
    test = difference.test
    is_tested = (
        test is not None
        and test.p_holm is not None
        and metric.name == next(iter(difference.numbers))
    )
    p_value = test.p_holm if is_tested and test is not None else None
    detail = ""
    if test is not None and p_value is not None:
        shown = NONE if isnan(p_value) else f"{p_value:.2g}"
        detail = f"p = {shown}; {test.gained} gained, {test.lost} lost"
    unit = "points" if metric.percent else title(metric)
    return Contrast(
        name=name,
        found=scaled(difference.numbers[metric.name], metric.factor),
        unit=unit,
        words=("fewer", "more") if unit.endswith("s") and not metric.percent else LOWER_HIGHER,
        p_value=p_value,
        detail=detail,
        digits=(metric.digits, 1),
    )


def _header(report: Report) -> list[Any]:
    parts = ["Part"] if any(one.part for one in report.grouped.results) else []
    names = [
        (title(metric), "%") if metric.percent and "%" not in title(metric) else title(metric)
        for metric in report.task.metrics
    ]
    return ["Arm", *parts, *names, "Questions"]


def _row(report: Report, result: Result) -> list[Any]:
    """Return an arm's numbers in one part, each with its interval below."""
    parts = [result.part] if any(one.part for one in report.grouped.results) else []
    cells = [
        (_number(result.numbers[m.name].value, m), _ends(result.numbers[m.name], m))
        for m in report.task.metrics
    ]
    return [result.arm, *parts, *cells, str(result.answers)]


def _pair(difference: Difference) -> str:
    return f"{difference.arm} minus {difference.reference}"


def _in_part(difference: Difference) -> str:
    return f" ({difference.part})" if difference.part else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _number(value: float, metric: Metric) -> str:
    return NONE if isnan(value) else f"{metric.factor * value:.{metric.digits}f}"


def _ends(found: Interval, metric: Metric) -> str:
    if isnan(found.low):
        return ""
    return f"{metric.factor * found.low:.1f} to {metric.factor * found.high:.1f}"


def _notes(run: RecordedRun, report: Report) -> list[str]:
    """Return what is needed to read the numbers."""
    notes = [line for note in report.task.notes(report.arms) for line in unwrap(note)]
    if names := run.settings.get("left_out"):
        notes.insert(0, f"without {len(names)} picture(s) that can't be read, and their questions")
    unfinished = [name for name in run.arms if name not in run.finished()]
    if unfinished:
        notes.append(f"unfinished, not in these numbers: {', '.join(unfinished)}")
    numbers = [one.numbers for one in report.grouped.results]
    numbers += [one.numbers for one in report.grouped.differences]
    wilson = any(one.wilson for found in numbers for one in found.values())
    if wilson:
        notes.append(f"where all {report.task.resampled}s agree, the interval is Wilson's")
    return [*notes, *few_pictures_note(report.grouped.pictures, report.task.resampled)]


def _settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's settings as texts; groups are one line each."""
    found = {}
    for name, value in settings.items():
        if name in UNLISTED:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        found[name] = str(value)
    return found
