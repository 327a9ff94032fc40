"""POPE: is there an X in the image? (arXiv 2305.10355)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.writing import write_atomically
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.tasks.base import Relabelled
from eval.tasks.pope.files import TypedSettings, TypedTask
from eval.tasks.pope.questions import annotated_images, build_questions, dump_questions
from eval.tasks.pope.repope import LABEL_SETS, LABELS_FOLDER, REPOPE, Labels, read_labels, relabel
from models.settings import ROOT


@dataclass(frozen=True, slots=True)
class PopeSettings(TypedSettings):
    """Settings of a POPE evaluation, besides those of all benchmarks in its format.

    Attributes:
        labels: Corrected labels to report in addition to the original ones: "repope".
        labels_path: Their folder; None for that of scripts/data/download.sh.
        build_from: COCO instances to build the question files from.
        build_images: Pictures to ask about when building.
    """

    labels: str | None = None
    labels_path: Path | None = None
    build_from: Path | None = None
    build_images: int = 500

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        TypedSettings.__post_init__(self)
        if self.labels is not None and self.labels not in LABEL_SETS:
            raise EvaluationError(
                f"--labels {self.labels!r} is unknown: {nearest(self.labels, LABEL_SETS)}"
            )
        if self.labels_path is not None and self.labels is None:
            raise EvaluationError(
                f"--labels-path {self.labels_path} is only used with --labels; pass --labels "
                f"{REPOPE} as well, or leave it out"
            )
        if self.build_images < 1:
            raise EvaluationError(f"build_images={self.build_images}, but at least 1 is needed")


class Pope(TypedTask):
    """POPE's questions, by type."""

    name = "pope"
    title = "POPE"
    settings_class: ClassVar[type[RunSettings]] = PopeSettings
    settings: PopeSettings
    file_name = "coco_pope_{}.json"
    # Where scripts/data/download.sh puts them, and where the authors' repository has them.
    folders = (ROOT / "data/COCO/pope-opera-2910", Path("pope_coco"))
    questions_download_name = "pope"

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags for corrected labels and for building questions."""
        super().add_flags(flags)
        sets = ", ".join(LABEL_SETS)
        flags.flag("--labels", help=f"also report with corrected labels: {sets} (default: none)")
        flags.flag("--labels-path", type=Path, help="their folder (data/COCO/repope)")
        flags.flag("--build-from", type=Path, help="instances_*.json to build questions from")
        flags.flag("--build-images", type=int, help="pictures for --build-from (default: 500)")

    def items(self) -> list[Item]:
        """Return the questions of the types, cut to the limit; with `--build-from`, build them."""
        self._labels(self.settings.pope_type)  # reports missing files before the model is asked
        if self.settings.build_from is None:
            return super().items()
        built = self._build()
        return [item for name in self.settings.pope_type
                for item in built[name][: self.settings.limit]]  # fmt: skip

    def folder(self) -> Path:
        """Return the folder of the question files, also of those that will be built."""
        source = self.settings.build_from
        if source is None:
            return super().folder()
        return self.settings.pope_path or source.parent / "pope"

    @property
    def missing_files_hint(self) -> str:
        """An alternative if there are no files, for the end of a message."""
        return ", or --build-from instances_val2014.json to build some"

    def input_paths(self) -> list[Path]:
        """Return the question files, also those that will be built, and the labels."""
        return [*super().input_paths(), *([LABELS_FOLDER] if self.settings.labels else [])]

    def relabel(self, arms: Mapping[str, Sequence[Answer]]) -> Relabelled | None:
        """Return the answers under the labels of `--labels`."""
        parts = dict.fromkeys(answer.item.part for answer in next(iter(arms.values())))
        labels = self._labels(list(parts))
        return None if labels is None else relabel(arms, labels)

    def _labels(self, parts: Sequence[str]) -> Labels | None:
        return read_labels(self.settings.labels_path, parts) if self.settings.labels else None

    def _build(self) -> dict[str, list[Item]]:
        """Build the questions of the three types, and write their files, except in a dry run.

        Raises:
            EvaluationError: If one of the files exists with other questions.
        """
        settings = self.settings
        assert settings.build_from is not None
        folder = self.folder()
        images = annotated_images(settings.build_from)
        built = build_questions(images, count=settings.build_images, seed=settings.seed)
        for pope_type, items in built.items():
            path, text = self.question_file(folder, pope_type), dump_questions(items)
            if path.exists() and path.read_bytes() != text.encode():
                raise EvaluationError(
                    f"{path} exists and has other questions; delete it, or pass another --pope-path"
                )
            if not path.exists() and not settings.dry_run:
                write_atomically(path, text)
        if not settings.dry_run:
            print(f"question files in {folder}", file=sys.stderr)
        return built
