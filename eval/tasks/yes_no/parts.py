"""Yes/no benchmarks with several parts, which can be selected: `--part existence`."""

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
    """A yes/no benchmark with several parts.

    Attributes:
        parts: Names of all parts, in the order of the tables.
        presets: Named groups of parts. A group is reported as a total if all its parts are
            answered.
        default_folder: Where scripts/data/download.sh puts the question files; None if they are in
            the folder of the pictures.
    """

    settings_class: ClassVar[type[RunSettings]] = PartSettings
    parts: ClassVar[Sequence[str]]
    presets: ClassVar[Mapping[str, Sequence[str]]]
    default_folder: ClassVar[Path | None] = None

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags that select questions."""
        presets = f"; or {', '.join(cls.presets)}" if cls.presets else ""
        names = f"{', '.join(cls.parts[:6])}{', ...' if len(cls.parts) > 6 else ''}"
        flags.flag(
            "--part", nargs="+", metavar="NAME", help=f"parts: {names}{presets} (default: all)"
        )
        if cls.default_folder is not None:
            where = cls.default_folder.relative_to(ROOT)
            flags.flag("--questions", type=Path, help=f"folder of questions (default: {where})")
        super().add_flags(flags)

    def input_paths(self) -> list[Path]:
        """Return the folder of the question files."""
        return [] if self.default_folder is None else [self.folder()]

    def folder(self) -> Path:
        """Return the folder of the question files.

        Raises:
            EvaluationError: If it does not exist.
        """
        assert self.default_folder is not None
        given = self.settings.questions if isinstance(self.settings, PartSettings) else None
        folder = given or self.default_folder
        if not folder.is_dir():
            raise EvaluationError(
                f"{folder} is not a folder; pass the folder of the question files as --questions "
                f"(scripts/data/download.sh --only {self.download_name} fetches them)"
            )
        return folder

    def select_parts(self, items: Sequence[Item]) -> list[Item]:
        """Return the questions of the parts of `--part`, each part cut to `--limit`.

        Raises:
            EvaluationError: If a part is unknown, or has no questions.
        """
        found: list[Item] = []
        for part in self._selected_parts():
            of = [item for item in items if item.part == part]
            if not of and self._requested_parts():
                raise EvaluationError(f"--part {part} has no questions; leave it out")
            found += of[: self.settings.limit]
        return found

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the presets with all their parts, and a total of all parts if it is pooled."""
        whole = {name: of for name, of in self.presets.items() if set(of) <= set(parts)}
        everything = {"all" if self.pooled else "all parts": parts} if len(parts) > 1 else {}
        return {**everything, **whole} if self.pooled else whole or everything

    def check_run(self, run: RecordedRun) -> None:
        """Refuse `--part` if `--answers` is a run folder, which is scored whole.

        Raises:
            EvaluationError: If parts are named.
        """
        super().check_run(run)
        if self._requested_parts():
            raise EvaluationError(
                f"--part selects questions, but {run.path} is a run folder, which is scored whole; "
                "leave out --part"
            )

    def _requested_parts(self) -> Sequence[str]:
        settings = self.settings
        return settings.part if isinstance(settings, PartSettings) else ()

    def _selected_parts(self) -> list[str]:
        names = self._requested_parts()
        for name in names:
            if name not in (*self.parts, *self.presets):
                known = [*self.parts, *self.presets]
                raise EvaluationError(f"part {name!r} is unknown: {nearest(name, known)}")
        wanted = {part for name in names for part in self.presets.get(name, [name])}
        return [part for part in self.parts if part in wanted or not names]
