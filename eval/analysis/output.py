"""Write what was found: CSV, figures, the page, JSON, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.analysis.figures.files import csv_text, write_figures
from eval.analysis.maps import long_rows
from eval.analysis.page import sinks_page
from eval.analysis.report import SinkReport, report_figures
from eval.analysis.tables import as_dict, findings_text
from eval.analysis.wording import join_names
from eval.files.storage import write_json
from eval.files.writing import write_atomically
from eval.run.folder import SINKS, RunFolder
from eval.run.outputs import OutputFile
from eval.run.provenance import provenance

if TYPE_CHECKING:
    from eval.analysis.analysed import Analysed

TABLE: Final = "sinks.csv"
PAGE: Final = "sinks.html"
FIGURES: Final = "figures"
NUMBERS: Final = "sinks.json"


def write_all(found: Sequence[Analysed], outputs: Mapping[str, OutputFile], root: Path) -> str:
    """Write each model's folder, one of all models if there are several, and what flags name.

    Args:
        found: By model.
        outputs: Files of --report and --json.
        root: Folder of the runs.
    Returns:
        The text to print.
    """
    for one in found:
        page = write_folder(one.folder, [one])
    folder = found[0].folder
    if len(found) > 1:
        folder = _joint_folder(found, root)
        page = write_folder(folder, found)
    text = f"{findings_text(found)}\n\nrun folder: {folder}\npage: {folder / PAGE}"
    if (report := outputs.get("report")) is not None:
        report.write_page(page)
        text += f"\npage: {report.path}"
    if (file := outputs.get("json")) is not None:
        file.write_json(as_dict(found))
    return text


def write_folder(folder: Path, found: Sequence[Analysed]) -> str:
    """Write tables, figures and the page of some models into a folder; return the page."""
    report = report_of(found)
    figures = report_figures(report)
    header, rows = long_rows(report.maps)
    write_atomically(folder / TABLE, csv_text((tuple(header), *map(tuple, rows))))
    write_figures(folder / FIGURES, figures.all())
    write_json(folder / NUMBERS, as_dict(found))
    page = sinks_page(report, figures)
    write_atomically(folder / PAGE, page)
    return page


def report_of(found: Sequence[Analysed]) -> SinkReport:
    """Return what the page shows of some models."""
    names = join_names([one.map.model for one in found])
    several = len(found) > 1
    return SinkReport(
        f"Vision sinks of {names}",
        [one.map for one in found],
        [one.claim for one in found if one.claim is not None],
        [ablation for one in found for ablation in one.ablations],
        [view for one in found for view in one.views],
        {
            (f"{one.map.model}: {name}" if several else name): text
            for one in found
            for name, text in one.facts.items()
        },
        _notes(found),
    )


def _notes(found: Sequence[Analysed]) -> list[str]:
    """Return the notes of some models, each of which names its model where there are several."""
    notes = []
    for one in found:
        for note in (note.removeprefix("note: ") for note in one.notes):
            is_clear = len(found) == 1 or one.map.model in note
            notes.append(note if is_clear else f"{one.map.model}: {note}")
    return notes


def _joint_folder(found: Sequence[Analysed], root: Path) -> Path:
    """Return the folder of several models together, with its run.json."""
    settings: dict[str, Any] = {"benchmark": SINKS, "of": [one.folder.name for one in found]}
    names = "+".join(one.folder.parent.name for one in found)
    folder = RunFolder(root / SINKS / names, "models", settings)
    with folder:
        folder.begin(provenance(()))
    return folder.path
