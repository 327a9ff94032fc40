"""Yes/no benchmarks of several parts, of which some can be asked: `--part existence`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.tasks.yes_no.settings import PartSettings
from eval.tasks.yes_no.task import YesNoTask
from models.settings import ROOT

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun


class PartsTask(YesNoTask):
    """A yes/no benchmark of several parts.

    Attributes:
        parts: Names of all, in the order of the tables.
        presets: Parts that are named together, by name. Each that is answered whole is a total.
        place: Where scripts/download_data.sh puts the question files; None where they lie among
            the pictures.
    """

    settings_class: ClassVar[type[RunSettings]] = PartSettings
    parts: ClassVar[Sequence[str]]
    presets: ClassVar[Mapping[str, Sequence[str]]]
    place: ClassVar[Path | None] = None

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags of the questions."""
        presets = f"; or {', '.join(cls.presets)}" if cls.presets else ""
        names = f"{', '.join(cls.parts[:6])}{', ...' if len(cls.parts) > 6 else ''}"
        flags.flag("--part", nargs="+", metavar="NAME", help=f"ask these only: {names}{presets}")
        if cls.place is not None:
            where = cls.place.relative_to(ROOT)
            flags.flag("--questions", type=Path, help=f"folder of its question files ({where})")
        super().add_flags(flags)

    def reads(self) -> list[Path]:
        """Return the folder of the question files."""
        return [] if self.place is None else [self.folder()]

    def folder(self) -> Path:
        """Return the folder of the question files.

        Raises:
            EvaluationError: If it does not exist.
        """
        assert self.place is not None
        given = self.settings.questions if isinstance(self.settings, PartSettings) else None
        folder = given or self.place
        if not folder.is_dir():
            raise EvaluationError(
                f"{folder} is not a folder; pass that of the question files as --questions "
                f"(scripts/download_data.sh --only {self.fetched_by} fetches them)"
            )
        return folder

    def chosen(self, items: Sequence[Item]) -> list[Item]:
        """Return the questions of the parts of `--part`, each part cut to `--limit`.

        Raises:
            EvaluationError: If a part is unknown, or has no questions.
        """
        found: list[Item] = []
        for part in self._wanted():
            of = [item for item in items if item.part == part]
            if not of and self._named():
                raise EvaluationError(f"--part {part}: there are no questions of it; leave it out")
            found += of[: self.settings.limit]
        return found

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the presets that are there whole, and all that is there if it is pooled."""
        whole = {name: of for name, of in self.presets.items() if set(of) <= set(parts)}
        everything = {"all" if self.pooled else "all parts": parts} if len(parts) > 1 else {}
        return {**everything, **whole} if self.pooled else whole or everything

    def check_run(self, run: RecordedRun) -> None:
        """Refuse `--part` beside a run folder, which is scored whole.

        Raises:
            EvaluationError: If parts are named.
        """
        super().check_run(run)
        if self._named():
            raise EvaluationError(
                f"--part chooses what is asked, but {run.path} is a run folder, which is scored "
                "whole; leave it out"
            )

    def _named(self) -> Sequence[str]:
        settings = self.settings
        return settings.part if isinstance(settings, PartSettings) else ()

    def _wanted(self) -> list[str]:
        names = self._named()
        for name in names:
            if name not in (*self.parts, *self.presets):
                known = [*self.parts, *self.presets]
                raise EvaluationError(f"part {name!r} is unknown: {nearest(name, known)}")
        wanted = {part for name in names for part in self.presets.get(name, [name])}
        return [part for part in self.parts if part in wanted or not names]
