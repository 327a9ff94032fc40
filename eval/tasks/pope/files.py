"""Benchmarks in POPE's format: a question file for each of its three types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.tasks.base import TaskProtocol
from eval.tasks.pope.questions import POPE_TYPES, read_questions
from eval.tasks.yes_no.matching import check_recorded
from eval.tasks.yes_no.settings import YesNoSettings
from eval.tasks.yes_no.task import YesNoTask

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun

MEAN: Final = "mean"


@dataclass(frozen=True, slots=True)
class TypedSettings(YesNoSettings):
    """Settings of a benchmark in POPE's format, besides those of all yes/no benchmarks.

    Attributes:
        pope_type: Types of questions: random, popular, adversarial.
        pope_path: Folder of the question files, or one of them.
    """

    pope_type: tuple[str, ...] = ("random",)
    pope_path: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        YesNoSettings.__post_init__(self)
        if not self.pope_type:
            raise EvaluationError(
                f"pope_type is empty; pass some of {', '.join(POPE_TYPES)}, or all"
            )
        if len(set(self.pope_type)) < len(self.pope_type):
            raise EvaluationError(
                f"pope_type {' '.join(self.pope_type)} has duplicates; name each type once"
            )
        if "all" in self.pope_type:
            object.__setattr__(self, "pope_type", POPE_TYPES)
        for name in self.pope_type:
            if name not in POPE_TYPES:
                raise EvaluationError(
                    f"pope_type {name!r} is unknown: {nearest(name, [*POPE_TYPES, 'all'])}"
                )


class TypedTask(YesNoTask):
    """A benchmark in POPE's format; its parts are the types.

    Attributes:
        file_name: Name of a question file, with {} instead of the type.
        folders: Default folders of the files; the first that exists is used.
        questions_download_name: Name for `scripts/data/download.sh --only` to fetch the files.
    """

    settings_class: ClassVar[type[RunSettings]] = TypedSettings
    settings: TypedSettings
    file_name: ClassVar[str]
    folders: ClassVar[Sequence[Path]]
    questions_download_name: ClassVar[str]
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # OPERA's and EAH's pope_eval.py: the bare question, 10 tokens.
        ("", "opera"): TaskProtocol(10, parser="opera"),
        # LLaVA's docs/Evaluation.md and model_vqa_loader.py: short-answer suffix, 128 tokens.
        ("llava-1.5", "official"): TaskProtocol(
            128, suffix="\nAnswer the question using a single word or phrase.", parser="pope"
        ),
        # The others publish no command for POPE: its question and parser, enough for a sentence.
        ("", "official"): TaskProtocol(128, parser="pope"),
        # Any model's chat template, with the bare question or a request for one word.
        ("", "chat"): TaskProtocol(128, parser="pope"),
        ("", "chat-short"): TaskProtocol(16, suffix="\nAnswer with yes or no.", parser="pope"),
    }

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags for the question files."""
        flags.flag(
            "--pope-type",
            nargs="+",
            metavar="TYPE",
            help=f"types of questions: {', '.join(POPE_TYPES)}, or all (default: random)",
        )
        name = cls.file_name.format("TYPE")
        flags.flag("--pope-path", type=Path, help=f"folder of {name}, or one such file")
        super().add_flags(flags)

    def items(self) -> list[Item]:
        """Return the questions of the types, each cut to the limit."""
        path = self.folder()
        if path.is_file() and len(self.settings.pope_type) > 1:
            raise EvaluationError(
                f"--pope-path {path} is a single file; pass a single --pope-type with it, or the "
                "folder of the files"
            )
        found = []
        for pope_type in self.settings.pope_type:
            file = path if path.is_file() else self.question_file(path, pope_type)
            if not file.is_file():
                raise EvaluationError(
                    f"{file} does not exist; pass the folder of {file.name} as --pope-path "
                    f"(scripts/data/download.sh --only {self.questions_download_name} fetches it)"
                )
            found += read_questions(file, pope_type)[: self.settings.limit]
        return found

    def question_file(self, folder: Path, pope_type: str) -> Path:
        """Return the path of a question file in a folder."""
        return folder / self.file_name.format(pope_type)

    def folder(self) -> Path:
        """Return the folder of the question files, or the single file.

        Raises:
            EvaluationError: If no folder is given or found.
        """
        path = self.settings.pope_path or next((p for p in self.folders if p.is_dir()), None)
        if path is None:
            raise EvaluationError(
                f"no question files: pass --pope-path (scripts/data/download.sh --only "
                f"{self.questions_download_name} fetches them){self.missing_files_hint}"
            )
        return path

    @property
    def missing_files_hint(self) -> str:
        """An alternative if there are no files, for the end of a message."""
        return ""

    def input_paths(self) -> list[Path]:
        """Return the question files."""
        folder = self.folder()
        return [folder, *(self.question_file(folder, name) for name in POPE_TYPES)]

    def label(self, items: Sequence[Item]) -> str:
        """Return the question types."""
        types = self.settings.pope_type
        return "all" if types == POPE_TYPES else "+".join(types)

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the mean over the types, if there are several."""
        return {MEAN: parts} if len(parts) > 1 else {}

    def check_run(self, run: RecordedRun) -> None:
        """Refuse a run of other types than `--pope-type`, or of other questions than a given file.

        With the default type, all types of the run are scored.
        """
        super().check_run(run)
        parts = {answer.item.part for answer in next(iter(run.answers().values()))}
        types = self.settings.pope_type
        if types != TypedSettings().pope_type and set(types) != parts:
            raise EvaluationError(
                f"--pope-type {' '.join(types)}, but {run.path} has answers to "
                f"{', '.join(sorted(parts))}; a run folder is scored whole: leave out --pope-type"
            )
        if self.settings.pope_path is not None:
            items = self.items()
            for answers in run.answers().values():
                check_recorded(run.path, answers, items)
