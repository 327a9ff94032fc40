"""What a benchmark is: data in, numbers out, and no model.

A task yields questions, turns answers about a picture into counts that add up over pictures, and
turns sums of counts into numbers. Asking, resuming, arms, intervals, tables and exports are shared.
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
        max_new_tokens: Length of an answer.
        suffix: Added to each question.
        parser: How answers are read; empty where they are not.
    """

    max_new_tokens: int
    suffix: str = ""
    parser: str = ""


def every_protocol() -> list[tuple[str, str]]:
    """Return the keys of `Task.protocols` that stand for every model family."""
    return [("", name) for name in ("opera", "official", "chat", "chat-short")]


class Appendix(NamedTuple):
    """What a task adds to a run's report: text to print, and content of `metrics.json`."""

    text: str = ""
    content: Mapping[str, Any] = MappingProxyType({})


class Relabelled(NamedTuple):
    """Answers under corrected labels.

    Attributes:
        name: Of the labels, as in `metrics.json`.
        title: In print.
        arms: Answers by arm; questions without a label are left out.
        notes: Lines below the table.
        content: What `metrics.json` has of the labels besides numbers.
    """

    name: str
    title: str
    arms: Mapping[str, Sequence[Answer]]
    notes: Sequence[str]
    content: Mapping[str, Any]


class Task(ABC):
    """A benchmark.

    Attributes:
        name: In commands and folders.
        title: In print.
        unit: What an answer is called.
        settings_class: Settings that its command has.
        protocols: By model family and protocol's name; "" stands for every other family.
        metrics: Its numbers; arms are compared by the first.
        pictures: Folder of its pictures, for messages and help.
        fetched_by: The word by which scripts/download_data.sh fetches them, or says where they are.
        published: Whether configs/paper.yaml has numbers of these metrics under its name.
        wants_p_yes: Whether the probability of "yes" against "no" at the first token is recorded.
        resampled: What intervals resample and tests flip: pictures, or `Item.unit`'s groups.
        pooled: Whether a total over parts is computed from their counts; else it is the sum or the
            mean of their numbers.
        draws_pictures: Whether the seed may choose its pictures, so that repeats have others.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = "answer"
    settings_class: ClassVar[type[RunSettings]] = RunSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]]
    metrics: ClassVar[Sequence[Metric]]
    pictures: ClassVar[str] = "data/COCO/val2014"
    fetched_by: ClassVar[str] = "images"
    published: ClassVar[bool] = True
    wants_p_yes: ClassVar[bool] = False
    resampled: ClassVar[str] = "picture"
    pooled: ClassVar[bool] = False
    draws_pictures: ClassVar[bool] = False

    def __init__(self, settings: RunSettings, protocol: TaskProtocol | None = None) -> None:
        """Take the settings.

        Args:
            settings: Of the command, of this task's settings class.
            protocol: How it is run; None before the model is known.
        """
        self.settings = settings
        self.protocol = protocol

    @property
    def likelihood(self) -> bool:
        """Whether that probability is the answer, and no text is generated."""
        return False

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags of this task alone to a command; there are none by default."""
        return

    @classmethod
    def example(cls) -> str:
        """Return the flags of an example of its command."""
        return f"--data-path {cls.pictures}"

    def saved(self) -> Path | None:
        """Return the file or run folder of answers that the settings name; None to ask a model."""
        return None

    def read_saved(self, path: Path, items: Sequence[Item]) -> SavedAnswers:
        """Return the answers of a file.

        Args:
            path: The file.
            items: The questions.
        Raises:
            EvaluationError: If they don't match, or this benchmark reads no saved answers.
        """
        raise EvaluationError(f"{self.name} reads no saved answers ({path}); leave --answers out")

    def check_run(self, run: RecordedRun) -> None:
        """Check that a run folder's questions are those that the settings name, if they name some.

        Raises:
            EvaluationError: If they are not.
        """
        return

    def check_scored(self, run: RecordedRun) -> None:
        """Check that the settings name what a run was scored with, besides its answers.

        Raises:
            EvaluationError: If they do not, so that the numbers would be others.
        """
        return

    @classmethod
    def protocol_of(cls, name: str, family: str) -> TaskProtocol:
        """Return a protocol by its name, for a model family.

        Raises:
            EvaluationError: If it is unknown.
        """
        for key in ((family, name), ("", name)):
            if key in cls.protocols:
                return cls.protocols[key]
        known = {protocol for _, protocol in cls.protocols}
        chats = {protocol for protocol in known if protocol.startswith("chat")}
        known = chats if name.startswith("chat") else known - chats  # of another kind of model
        raise EvaluationError(f"protocol {name!r} is unknown: {nearest(name, known)}")

    @abstractmethod
    def items(self) -> list[Item]:
        """Return all questions, in order.

        Raises:
            EvaluationError: If the data can't be read.
        """

    def reads(self) -> list[Path]:
        """Return files and folders that are read or made, besides those that settings name."""
        return []

    def prompt(self, item: Item, protocol: TaskProtocol) -> str:
        """Return what the model is asked, without its own prompt around it."""
        return item.question + protocol.suffix

    def asked(self) -> dict[str, Any]:
        """Return what else is recorded of the questions in run.json."""
        return {}

    def label(self, items: Sequence[Item]) -> str:
        """Return what the questions are called in the name of a run folder."""
        return f"{len(items)}questions"

    @abstractmethod
    def counts(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return what the answers about one `Item.unit`, in one part, add to the counts."""

    @abstractmethod
    def numbers(self, sums: Array) -> Array:
        """Return the metrics from sums of counts, shape (C, ...) -> (M, ...)."""

    def right(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None where answers are not right or wrong."""
        return None

    def totals(self, parts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return what is computed over several parts, by name."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what the numbers depend on besides the answers, for `metrics.json`."""
        return {}

    def after(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write what else belongs into the run's report, and return what is said of it.

        Args:
            report: Folder of the report.
            arms: Answers by arm.
        """
        return Appendix()

    def further_scorers(self) -> Sequence[Scorer]:
        """Return what else scores the answers of repeats; nothing by default."""
        return ()

    def notes(self, arms: Mapping[str, Sequence[Answer]]) -> list[str]:
        """Return what has to be known of the answers, for print below the tables."""
        return []

    def relabelled(self, arms: Mapping[str, Sequence[Answer]]) -> Relabelled | None:
        """Return the answers under other labels, which are reported beside; None for none."""
        return None

    def beside(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return what is said of the arms beside the metrics, also when a run is only shown.

        Args:
            arms: Answers by arm, all to the same questions.
            references: The arms that each arm is compared with.
        """
        return Appendix()

    def more(self, arms: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Return further content for `metrics.json`."""
        return {}


# Dotted paths, so that a command imports its own task alone. One line per benchmark.
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


def pictures_missing(folder: Path, items: Sequence[Item], kind: type[Task] = Task) -> None:
    """Check that all pictures are there, before anything costly starts.

    Args:
        folder: Where they are.
        items: The questions.
        kind: The benchmark; by default one of COCO's pictures.
    Raises:
        EvaluationError: Naming the first that is missing, and how many are, or one that is not in
            the folder.
    """
    names = dict.fromkeys(item.image for item in items)
    for name in names:
        if not is_inside(folder, name):
            raise EvaluationError(
                f"the questions ask about {printable(name)}, which is not in {folder}; pictures "
                "are read from the folder --data-path and below only, so that nobody's question "
                "file shows a model or a judge other files: pass a folder that holds them all"
            )
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(names)} pictures are not in {folder}, {printable(missing[0])} "
            f"among them; pass the right --data-path, such as {kind.pictures} "
            f"(scripts/download_data.sh --only {kind.fetched_by} fetches them, or says where they "
            "are)"
        )


def skip_unreadable(folder: Path, items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """Return the questions about pictures that can be read, and the names of the other pictures.

    Every picture is opened, and a note on standard error lists those that are left out.

    Raises:
        EvaluationError: If none can be read.
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
