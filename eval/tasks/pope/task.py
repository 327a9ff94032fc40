"""POPE: is there an X in the image? (arXiv 2305.10355)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.writing import write_atomically
from eval.run.flag_parser import FlagParser
from eval.tasks.base import Relabelled, TaskProtocol
from eval.tasks.pope.questions import (
    POPE_TYPES,
    annotated_images,
    build_questions,
    dump_questions,
    question_file,
    read_questions,
)
from eval.tasks.pope.repope import LABEL_SETS, LABELS_FOLDER, REPOPE, Labels, read_labels, relabel
from eval.tasks.yes_no.matching import check_recorded
from eval.tasks.yes_no.task import YesNoSettings, YesNoTask
from models.settings import ROOT

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

MEAN: Final = "mean"
# Where the paper's question files are if nobody says: as scripts/download_data.sh puts them, and as
# they lie in the authors' checkout.
QUESTION_FOLDERS: Final = (ROOT / "data/COCO/pope-opera-2910", Path("pope_coco"))


@dataclass(frozen=True, slots=True)
class PopeSettings(YesNoSettings):
    """Settings of a POPE evaluation, besides those of all yes/no benchmarks.

    Attributes:
        pope_type: Types of questions: random, popular, adversarial.
        pope_path: Folder of `coco_pope_<type>.json`, or one question file.
        labels: Corrected labels to report beside the original ones: "repope".
        labels_path: Their folder; None for that of download_data.sh.
        build_from: COCO instances to build the question files from.
        build_images: Pictures to ask about when building.
    """

    pope_type: tuple[str, ...] = ("random",)
    pope_path: Path | None = None
    labels: str | None = None
    labels_path: Path | None = None
    build_from: Path | None = None
    build_images: int = 500

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        YesNoSettings.__post_init__(self)
        if not self.pope_type:
            raise EvaluationError(f"pope_type names none: {', '.join(POPE_TYPES)}, or all")
        if len(set(self.pope_type)) < len(self.pope_type):
            raise EvaluationError(f"pope_type {' '.join(self.pope_type)}: name each once")
        if "all" in self.pope_type:
            object.__setattr__(self, "pope_type", POPE_TYPES)
        for name in self.pope_type:
            if name not in POPE_TYPES:
                raise EvaluationError(
                    f"pope_type {name!r} is unknown: {nearest(name, [*POPE_TYPES, 'all'])}"
                )
        if self.labels is not None and self.labels not in LABEL_SETS:
            raise EvaluationError(
                f"--labels {self.labels!r} is unknown: {nearest(self.labels, LABEL_SETS)}"
            )
        if self.labels_path is not None and self.labels is None:
            raise EvaluationError(
                f"--labels-path {self.labels_path} is read with --labels only; pass --labels "
                f"{REPOPE}, too"
            )
        if self.build_images < 1:
            raise EvaluationError(f"build_images={self.build_images}, but at least 1 is needed")


class Pope(YesNoTask):
    """POPE's questions, by type."""

    name = "pope"
    title = "POPE"
    settings_class = PopeSettings
    settings: PopeSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # OPERA's and EAH's pope_eval.py: the bare question, 10 tokens.
        ("", "opera"): TaskProtocol(10, parser="opera"),
        # LLaVA's docs/Evaluation.md and model_vqa_loader.py: short-answer suffix, 128 tokens.
        ("llava-1.5", "official"): TaskProtocol(
            128, suffix="\nAnswer the question using a single word or phrase.", parser="pope"
        ),
        # The others publish no command for POPE: its own question and parser, room for a sentence.
        ("", "official"): TaskProtocol(128, parser="pope"),
        # Any model's chat template, with the bare question or a request for one word.
        ("", "chat"): TaskProtocol(128, parser="pope"),
        ("", "chat-short"): TaskProtocol(16, suffix="\nAnswer with yes or no.", parser="pope"),
    }

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags of POPE's questions."""
        flags.flag(
            "--pope-type",
            nargs="+",
            metavar="TYPE",
            help=f"{', '.join(POPE_TYPES)}, or all (random)",
        )
        flags.flag("--pope-path", type=Path, help="folder of coco_pope_TYPE.json, or one file")
        super().add_flags(flags)
        flags.flag("--labels", help=f"corrected labels, beside: {', '.join(LABEL_SETS)} (none)")
        flags.flag("--labels-path", type=Path, help="their folder (data/COCO/repope)")
        flags.flag("--build-from", type=Path, help="instances_*.json to build questions from")
        flags.flag("--build-images", type=int, help="pictures to ask about when building (500)")

    def items(self) -> list[Item]:
        """Return the questions of the types, cut to the limit; built first if asked to."""
        self._labels(self.settings.pope_type)  # missing files are said now, not after the answers
        if self.settings.build_from is not None:
            built = self._build()
            return [item for name in self.settings.pope_type
                    for item in built[name][: self.settings.limit]]  # fmt: skip
        path = self._folder()
        if path.is_file() and len(self.settings.pope_type) > 1:
            raise EvaluationError(f"--pope-path {path} is one file; pass one --pope-type with it")
        found = []
        for pope_type in self.settings.pope_type:
            file = path if path.is_file() else question_file(path, pope_type)
            if not file.is_file():
                raise EvaluationError(
                    f"{file} does not exist; pass the folder of coco_pope_{pope_type}.json as "
                    "--pope-path (scripts/download_data.sh fetches it)"
                )
            found += read_questions(file, pope_type)[: self.settings.limit]
        return found

    def reads(self) -> list[Path]:
        """Return the question files, also those that are to be built, and the labels."""
        folder = self._built_folder() if self.settings.build_from else self._folder()
        files = [question_file(folder, name) for name in POPE_TYPES]
        return [folder, *files, *([LABELS_FOLDER] if self.settings.labels else [])]

    def label(self, items: Sequence[Item]) -> str:
        """Return the question types."""
        types = self.settings.pope_type
        return "all" if types == POPE_TYPES else "+".join(types)

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the mean over the types, if there are several."""
        return {MEAN: parts} if len(parts) > 1 else {}

    def check_run(self, run: RecordedRun) -> None:
        """Refuse a run of other types than `--pope-type`, or of other questions than a given file.

        The default type says nothing: every type of the run is scored.
        """
        super().check_run(run)
        parts = {answer.item.part for answer in next(iter(run.answers().values()))}
        types = self.settings.pope_type
        if types != PopeSettings().pope_type and set(types) != parts:
            raise EvaluationError(
                f"--pope-type {' '.join(types)}, but {run.path} holds answers to "
                f"{', '.join(sorted(parts))}; a run folder is scored whole: leave --pope-type out"
            )
        if self.settings.pope_path is not None:
            items = self.items()
            for answers in run.answers().values():
                check_recorded(run.path, answers, items)

    def relabelled(self, arms: Mapping[str, Sequence[Answer]]) -> Relabelled | None:
        """Return the answers under the labels of `--labels`."""
        parts = dict.fromkeys(answer.item.part for answer in next(iter(arms.values())))
        labels = self._labels(list(parts))
        return None if labels is None else relabel(arms, labels)

    def _labels(self, parts: Sequence[str]) -> Labels | None:
        return read_labels(self.settings.labels_path, parts) if self.settings.labels else None

    def _folder(self) -> Path:
        path = self.settings.pope_path or next((p for p in QUESTION_FOLDERS if p.is_dir()), None)
        if path is None:
            raise EvaluationError(
                "no question files: pass --pope-path (scripts/download_data.sh fetches them), or "
                "--build-from instances_val2014.json to build some"
            )
        return path

    def _built_folder(self) -> Path:
        assert self.settings.build_from is not None
        return self.settings.pope_path or self.settings.build_from.parent / "pope"

    def _build(self) -> dict[str, list[Item]]:
        """Build the questions of the three types, and write their files, except in a dry run.

        Raises:
            EvaluationError: If one of them is there already and holds other questions.
        """
        settings = self.settings
        assert settings.build_from is not None
        folder = self._built_folder()
        images = annotated_images(settings.build_from)
        built = build_questions(images, count=settings.build_images, seed=settings.seed)
        for pope_type, items in built.items():
            path, text = question_file(folder, pope_type), dump_questions(items)
            if path.exists() and path.read_bytes() != text.encode():
                raise EvaluationError(
                    f"{path} exists and holds other questions; delete it or pass another "
                    "--pope-path"
                )
            if not path.exists() and not settings.dry_run:
                write_atomically(path, text)
        if not settings.dry_run:
            print(f"question files in {folder}", file=sys.stderr)
        return built
