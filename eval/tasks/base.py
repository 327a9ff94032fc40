"""The interface of a benchmark, which never loads a model.

A task yields questions, turns the answers about a picture into counts that add up over pictures,
and computes metrics from sums of counts. Asking, resuming, arms, intervals, tables and exports are
shared code.
"""

from __future__ import annotations

import os.path
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.pictures import is_inside, unreadable_pictures
from eval.files.saved import SavedAnswers
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.stats.intervals import Array
from eval.stats.metric import Metric, Scorer
from models.errors import printable

if TYPE_CHECKING:
    from eval.run.recorded import RecordedRun


@dataclass(frozen=True, slots=True)
class TaskProtocol:
    """How a benchmark is run under a protocol.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        suffix: Text appended to each question.
        parser: Parser of the answers; empty if they are not parsed.
    """

    max_new_tokens: int
    suffix: str = ""
    parser: str = ""


def every_protocol() -> list[tuple[str, str]]:
    """Return the keys of `Task.protocols` that apply to every model family."""
    return [("", name) for name in ("opera", "official", "chat", "chat-short")]


class Appendix(NamedTuple):
    """What a task adds to a run's report: text to print, and entries of `metrics.json`."""

    text: str = ""
    content: Mapping[str, Any] = MappingProxyType({})


class Relabelled(NamedTuple):
    """Answers under corrected labels.

    Attributes:
        name: Name of the labels, as in `metrics.json`.
        title: Title of the printed table.
        arms: Answers by arm; questions without a label are left out.
        notes: Lines below the table.
        content: Entries of `metrics.json` about the labels, besides numbers.
    """

    name: str
    title: str
    arms: Mapping[str, Sequence[Answer]]
    notes: Sequence[str]
    content: Mapping[str, Any]


class Task(ABC):
    """A benchmark.

    Attributes:
        name: Its name in commands and folders.
        title: Its name in printed text.
        unit: Word for an answer.
        settings_class: Class of its settings.
        protocols: By model family and protocol name; "" applies to every other family.
        metrics: Its metrics; arms are compared by the first.
        pictures: Usual folder of its pictures, for messages and help.
        download_name: Name for `scripts/data/download.sh --only`, which fetches the pictures or
            prints where they are.
        published: Whether configs/paper.yaml has numbers of these metrics under its name.
        wants_p_yes: Whether the probability of "yes" against "no" at the first token is recorded.
        resampled: Unit that intervals resample and tests flip: pictures, or groups by `Item.unit`.
        pooled: Whether a total over parts is computed from their counts; otherwise it is the sum or
            the mean of their numbers.
        draws_pictures: Whether the seed may select its pictures, so that repeats differ in them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = "answer"
    settings_class: ClassVar[type[RunSettings]] = RunSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]]
    metrics: ClassVar[Sequence[Metric]]
    pictures: ClassVar[str] = "data/COCO/val2014"
    download_name: ClassVar[str] = "images"
    published: ClassVar[bool] = True
    wants_p_yes: ClassVar[bool] = False
    resampled: ClassVar[str] = "picture"
    pooled: ClassVar[bool] = False
    draws_pictures: ClassVar[bool] = False

    def __init__(self, settings: RunSettings, protocol: TaskProtocol | None = None) -> None:
        """Take the settings.

        Args:
            settings: Settings of the command, an instance of `settings_class`.
            protocol: The protocol; None before the model is known.
        """
        self.settings = settings
        self.protocol = protocol

    @property
    def likelihood(self) -> bool:
        """Whether the probability of "yes" decides the answer, and no text is generated."""
        return False

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add this task's own flags to a command; by default there are none."""
        return

    @classmethod
    def example(cls) -> str:
        """Return the flags of an example command."""
        return f"--data-path {cls.pictures}"

    def answers_path(self) -> Path | None:
        """Return the file or run folder of saved answers in the settings; None to ask a model."""
        return None

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Return the answers of a file.

        Args:
            path: The file.
            items: The questions.
        Raises:
            EvaluationError: If they don't match, or this benchmark can't read saved answers.
        """
        raise EvaluationError(
            f"{self.name} can't score saved answers ({path}); leave out --answers to ask a model"
        )

    def check_run(self, run: RecordedRun) -> None:
        """Check that a run folder has the questions that the settings name, if they name any.

        Raises:
            EvaluationError: If it has other questions.
        """
        return

    def check_scored(self, run: RecordedRun) -> None:
        """Check that the settings name everything that the run was scored with before.

        Raises:
            EvaluationError: If they do not, so that the numbers would change.
        """
        return

    @classmethod
    def protocol_of(cls, name: str, family: str) -> TaskProtocol:
        """Return the protocol of that name for a model family.

        Raises:
            EvaluationError: If it is unknown.
        """
        for key in ((family, name), ("", name)):
            if key in cls.protocols:
                return cls.protocols[key]
        known = {protocol for _, protocol in cls.protocols}
        chats = {protocol for protocol in known if protocol.startswith("chat")}
        # Chat protocols are for other models than the named ones.
        known = chats if name.startswith("chat") else known - chats
        raise EvaluationError(f"protocol {name!r} is unknown: {nearest(name, known)}")

    @abstractmethod
    def items(self) -> list[Item]:
        """Return all questions, in order.

        Raises:
            EvaluationError: If the data can't be read.
        """

    def input_paths(self) -> list[Path]:
        """Return files and folders that are read or created, besides those in the settings."""
        return []

    def prompt(self, item: Item, protocol: TaskProtocol) -> str:
        """Return the text of a question, before the model's prompt template is applied."""
        return item.question + protocol.suffix

    def recorded_settings(self) -> dict[str, Any]:
        """Return further settings of the questions that run.json records."""
        return {}

    def label(self, items: Sequence[Item]) -> str:
        """Return the word for the questions in the name of a run folder."""
        return f"{len(items)}questions"

    @abstractmethod
    def counts(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return the counts of the answers about one `Item.unit` in one part."""

    @abstractmethod
    def numbers(self, sums: Array) -> Array:
        """Compute the metrics from sums of counts, shape (C, ...) -> (M, ...)."""

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None if answers are not right or wrong."""
        return None

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the totals over several parts: the parts of each, by name."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what the numbers depend on besides the answers, for `metrics.json`."""
        return {}

    def write_files(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write further files of the run's report, and return what to report about them.

        Args:
            report: Folder of the report.
            arms: Answers by arm.
        """
        return Appendix()

    def further_scorers(self) -> Sequence[Scorer]:
        """Return further scorers of the answers of repeats; none by default."""
        return ()

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return notes on the answers, which are printed below the tables."""
        return []

    def relabel(self, arms: Mapping[str, Sequence[Answer]]) -> Relabelled | None:
        """Return the answers under other labels, for a second table; None without such labels."""
        return None

    def appendix(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return what the report has besides the metrics, also when a run is only shown.

        Args:
            arms: Answers by arm, all to the same questions.
            references: The arms that each arm is compared with.
        """
        return Appendix()

    def extra_metrics(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return further entries of `metrics.json`."""
        return {}


# Dotted paths, so that a command imports only its own task. One line per benchmark.
TASKS: Final = {
    "pope": "eval.tasks.pope.task.Pope",
    "repope": "eval.tasks.pope.others.RePope",
    "pope-aokvqa": "eval.tasks.pope.others.PopeAokvqa",
    "pope-gqa": "eval.tasks.pope.others.PopeGqa",
    "chair": "eval.tasks.chair.task.ChairCaptions",
    "mme": "eval.tasks.mme.Mme",
    "hallusionbench": "eval.tasks.hallusionbench.task.HallusionBench",
    "dash-b": "eval.tasks.dash_b.DashB",
    "amber-discriminative": "eval.tasks.amber.discriminative.AmberDiscriminative",
    "amber-generative": "eval.tasks.amber.generative.AmberGenerative",
    "mmhal": "eval.tasks.mmhal.task.MMHal",
}


def check_pictures_exist(folder: Path, items: Sequence[Item], kind: type[Task] = Task) -> None:
    """Check that all pictures exist, before anything costly starts.

    Args:
        folder: Folder of the pictures.
        items: The questions.
        kind: The benchmark; by default one with COCO's pictures.
    Raises:
        EvaluationError: If pictures are missing or are not in the folder, naming the first.
    """
    names = dict.fromkeys(item.image for item in items)
    for name in names:
        if not is_inside(folder, name):
            raise EvaluationError(
                f"the questions ask about {printable(name)}, which is not in {folder}; pictures "
                "are only read from --data-path and its subfolders, so that a question file can't "
                "show other files to a model or a judge: pass a folder that contains them all"
            )
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(names)} pictures are not in {folder}, the first is "
            f"{printable(missing[0])}; pass the right --data-path, such as {kind.pictures} "
            f"(`scripts/data/download.sh --only {kind.download_name}` fetches them, or prints "
            "where to get them)"
        )


def skip_unreadable(folder: Path, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """Return the questions about readable pictures, and the names of the unreadable pictures.

    Every picture is opened. A note on standard error lists those that are left out.

    Raises:
        EvaluationError: If no picture can be read.
    """
    names = dict.fromkeys(item.image for item in items)
    bad = unreadable_pictures(folder, names)
    kept = [item for item in items if item.image not in bad]
    if items and not kept:
        raise EvaluationError(
            f"none of the {len(names)} pictures can be read; {next(iter(bad.values()))}"
        )
    if bad:
        print(
            f"note: {len(bad)} of {len(names)} pictures are left out, with their "
            f"{len(items) - len(kept)} questions:",
            *(f"  {reason}" for reason in bad.values()),
            sep="\n",
            file=sys.stderr,
        )
    return kept, list(bad)
