"""A run's numbers as one HTML page: what differs, all arms by part, settings, and costs last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from eval.output.contrasts import (
    LEVEL,
    TERMS,
    Contrast,
    ContrastGroup,
    ContrastTable,
    contrast_table,
    finding,
    scaled,
)
from eval.output.layer_summary import HEADER
from eval.output.page import page_template
from eval.output.tables import cost_table, pair_name, title
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
    f"it must be below {LEVEL}, too, for a primary comparison to be significant",
)
OTHERS: Final = (
    "Other differences",
    "have an interval and no adjusted test: of 20 that should include 0, about one excludes it "
    "by chance",
)
UNLISTED: Final = ("questions", "images", "pictures")  # settings that are long lists or hashes


def run_page(run: RecordedRun, report: Report) -> str:
    """Return a run's numbers as one self-contained HTML page."""
    metrics, grouped = report.task.metrics, report.grouped
    costs = cost_table(report.costs, report.reference)
    size = len(next(iter(report.arms.values())))
    return page_template(TEMPLATE).render(
        mark=MARK,
        title=f"{report.task.title}: {run.settings.get('model', run.path.name)}",
        about=f"{size} questions about {grouped.pictures} {report.task.resampled}(s), answered by "
        f"{', '.join(report.arms)}; run {run.path.name}",
        findings=[_finding(report, one) for one in grouped.primary_differences()],
        primary=_primary(report),
        by_part=_by_part(report),
        terms=[*([PERMUTATION_TEST] if report.tested else []), OTHERS, *TERMS],
        header=_header(report),
        rows=[_row(report, one) for one in grouped.results],
        notes=_notes(run, report),
        resamples=f"{RESAMPLES:,}",
        beside=report.appendix.text,
        layers=(
            ["Arm", *HEADER],
            [[arm, *one.cells()] for arm, of in report.layers.items() for one in of],
        ),
        settings=_settings(run.settings),
        costs=costs,
        resampled=report.task.resampled,
        metrics=[(title(metric), "in percent") for metric in metrics if metric.percent],
    )


def _finding(report: Report, difference: Difference) -> str:
    """Return a primary comparison in the first metric as a sentence."""
    metric = report.task.metrics[0]
    row = _contrast(difference, metric, name=pair_name(difference))
    values = {one.arm: one.numbers[metric.name].value for one in report.grouped.results
              if one.part == difference.part}  # fmt: skip
    arm, reference, name = difference.arm, difference.reference, title(metric)
    shown = " against ".join(_number(values[of], metric) for of in (arm, reference))
    where = f" ({difference.part})" if difference.part else ""
    return finding(
        row,
        f"{arm} has {row.verdict} {name} than {reference}{where}",
        f"No difference in {name} can be claimed between {arm} and {reference}{where}",
        shown,
        row.detail,
    )


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
    pairs = {pair_name(one) for one in report.grouped.differences}
    only = next(iter(references), "")
    pair = f"Minus {only}" if len(references) == 1 else "Difference"
    if len(pairs) == 1:
        pair = next(one.arm for one in report.grouped.differences) + f" minus {only}"

    def name(difference: Difference) -> str:
        return difference.arm if len(references) == 1 else pair_name(difference)

    return contrast_table(first, pair, (
        ContrastGroup(title_, [_contrast(one, metric, name=name(one)) for one, metric in rows])
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
    return Contrast(
        name=name,
        found=scaled(difference.numbers[metric.name], metric.factor),
        unit="points" if metric.percent else title(metric),
        p_value=p_value,
        detail=detail,
        digits=(metric.digits, 1),
    )


def _header(report: Report) -> list[Any]:
    parts = ["Part"] if any(one.part for one in report.grouped.results) else []
    return ["Arm", *parts, *(title(metric) for metric in report.task.metrics), "Questions"]


def _row(report: Report, result: Result) -> list[Any]:
    """Return an arm's numbers in one part, each with its interval below."""
    parts = [result.part] if any(one.part for one in report.grouped.results) else []
    cells = [
        (_number(result.numbers[m.name].value, m), _ends(result.numbers[m.name], m))
        for m in report.task.metrics
    ]
    return [result.arm, *parts, *cells, str(result.answers)]


def _number(value: float, metric: Metric) -> str:
    return NONE if isnan(value) else f"{metric.factor * value:.{metric.digits}f}"


def _ends(found: Interval, metric: Metric) -> str:
    if isnan(found.low):
        return ""
    return f"{metric.factor * found.low:.1f} to {metric.factor * found.high:.1f}"


def _notes(run: RecordedRun, report: Report) -> list[str]:
    """Return what is needed to read the numbers."""
    notes = [*report.task.notes(report.arms)]
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
