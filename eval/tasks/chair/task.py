"""Captions for CHAIR: a model is asked to describe pictures."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from eah.errors import nearest
from eval.errors import EvaluationError, some_ids
from eval.files.answers import BASELINE, Answer, Caption, Item
from eval.files.coco import SPLITS
from eval.files.image_ids import ImageId
from eval.files.writing import write_atomically
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.stats.metric import Scorer
from eval.tasks.base import Appendix, TaskProtocol
from eval.tasks.chair import truth as chair_truth
from eval.tasks.chair.analyzers import ANALYZERS
from eval.tasks.chair.image_lists import read_ids
from eval.tasks.chair.images import NUM_IMAGES, find_ids, pictures_in, sample_ids
from eval.tasks.chair.scoring import ScoreSettings
from eval.tasks.open_text import OpenTextTask

QUESTION = "Please describe this image in detail."


@dataclass(frozen=True, slots=True)
class ChairSettings(RunSettings):
    """Settings of captioning for CHAIR, besides the common ones.

    Attributes:
        question: The question; None for that of OPERA's and EAH's chair_eval.py.
        image_ids: File of the image ids to caption, in order; None for a sample of the folder.
        num_images: Size of the sample; None for 500.
        score: Whether to score the captions as well.
        coco_path: Folder of COCO's annotations; None for `annotations` next to the pictures.
        ground_truth: A file of objects by image id instead of annotations.
        analyzer: Analyzer that finds the objects in captions.
    """

    question: str | None = None
    image_ids: Path | None = None
    num_images: int | None = None
    score: bool = False
    coco_path: Path | None = None
    ground_truth: Path | None = None
    analyzer: str = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        RunSettings.__post_init__(self)
        if self.question is not None and not self.question.strip():
            raise EvaluationError(
                f"question={self.question!r} is empty, but text is needed; leave it out to ask "
                f"{QUESTION!r}"
            )
        if self.num_images is not None and self.num_images < 1:
            raise EvaluationError(f"num_images={self.num_images}, but at least 1 is needed")
        if not self.score and (self.ground_truth is not None or self.analyzer != "auto"):
            raise EvaluationError(
                "--ground-truth and --analyzer are only used with --score; add it, or leave them "
                "out"
            )
        if self.analyzer not in ANALYZERS:
            raise EvaluationError(
                f"analyzer {self.analyzer!r} is unknown: {nearest(self.analyzer, ANALYZERS)}"
            )
        if self.image_ids is not None and self.num_images is not None:
            raise EvaluationError(
                f"both image_ids={self.image_ids} and num_images={self.num_images} select "
                "pictures, but only one is allowed; leave one of them out (limit shortens a list)"
            )


class ChairCaptions(OpenTextTask):
    """Descriptions of pictures, and their lengths."""

    name = "chair"
    title = "captions for CHAIR"
    unit = "caption"
    settings_class = ChairSettings
    settings: ChairSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # OPERA's and EAH's chair_eval.py.
        ("", "opera"): TaskProtocol(512),
        # No model publishes CHAIR: the same question and length, in the model's own prompt.
        ("", "official"): TaskProtocol(512),
        # Any model's chat template. There is no short-answer protocol for captions.
        ("", "chat"): TaskProtocol(512),
    }
    draws_pictures = True

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags of captioning."""
        flags.flag("--question", metavar="TEXT", help=f"question to ask (default: {QUESTION})")
        flags.flag("--image-ids", type=Path, metavar="FILE",
                   help="list of image ids, or a captions file: pictures to caption")  # fmt: skip
        flags.flag("--num-images", type=int,
                   help=f"pictures to sample from the folder (default: {NUM_IMAGES})")  # fmt: skip
        flags.flag("--score", action="store_true",
                   help="also score the captions, as chair.py does")  # fmt: skip
        flags.flag("--coco_path", type=Path,
                   help="with --score: annotations (default: next to the pictures)")  # fmt: skip
        flags.flag("--ground-truth", type=Path,
                   help="with --score: objects by image id, instead of annotations")  # fmt: skip
        flags.flag("--analyzer", help=f"with --score: {', '.join(ANALYZERS)} (default: auto)")

    def items(self) -> list[Item]:
        """Return the pictures of the run, in order, cut to the limit."""
        settings = self.settings
        folder = settings.pictures_folder()
        if settings.score:
            score_settings(settings)  # so that missing files are reported before the model is asked
        pictures = pictures_in(folder)
        if settings.image_ids is not None:
            listed = read_ids(settings.image_ids)[: settings.limit]
            ids = find_ids(listed, pictures, path=settings.image_ids, folder=folder)
        else:
            count = settings.num_images or NUM_IMAGES
            if len(pictures) < count:
                print(
                    f"note: {folder} has only {len(pictures)} pictures, fewer than {count}; all of "
                    "them are used",
                    file=sys.stderr,
                )
            ids = sample_ids(pictures, count, seed=settings.seed)[: settings.limit]
        if settings.score:
            _check_ids_can_be_scored(ids, settings.ground_truth)
        return [Item(i, pictures[i], settings.question or QUESTION) for i in ids]

    def input_paths(self) -> list[Path]:
        """Return the folder of the annotations that captions are scored with."""
        return [annotations_of(self.settings)[0]] if self.settings.score else []

    def recorded_settings(self) -> dict[str, Any]:
        """Return the question."""
        return self.facts()

    def label(self, items: Sequence[Item]) -> str:
        """Return the number of pictures."""
        return f"{len(items)}images"

    def facts(self) -> dict[str, Any]:
        """Return the question."""
        return {"question": self.settings.question or QUESTION}

    def write_files(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write each arm's captions and the image ids, and score the captions with `--score`."""
        some = next(iter(arms.values()))
        ids = "".join(f"{answer.item.id}\n" for answer in some)
        write_atomically(report / "image_ids.txt", ids)
        for arm, answers in arms.items():
            write_atomically(captions_file(report, arm), dump_captions(answers))
        if not self.settings.score:
            named = any(isinstance(answer.item.id, str) for answer in some)
            command = next_command(report, list(arms), self.settings, named=named)
            return Appendix(f"next: {command}")
        # Imported here, because --help and captioning without scores don't need it.
        from eval.tasks.chair.output import score_captions

        captions = {
            arm: [Caption(answer.item.id, answer.text) for answer in answers]
            for arm, answers in arms.items()
        }
        result = score_captions(captions, score_settings(self.settings), source=report.parent)
        return Appendix(result.text(), {"chair": result.as_dict()})

    def further_scorers(self) -> Sequence[Scorer]:
        """Return CHAIR's scorer with `--score`."""
        if not self.settings.score:
            return ()
        from eval.tasks.chair.repeats import CaptionScorer

        return (CaptionScorer(score_settings(self.settings)),)


def score_settings(settings: ChairSettings) -> ScoreSettings:
    """Return the settings of the scorer for `--score`.

    Raises:
        EvaluationError: If there are no annotations.
    """
    folder, splits = annotations_of(settings)
    if settings.ground_truth is None and not splits:
        raise EvaluationError(
            f"{folder} has none of COCO's annotations (instances_val2014.json, ...), which --score "
            "needs; pass --coco_path, or --ground-truth with a file of objects by image id"
        )
    return ScoreSettings(
        coco_path=None if settings.ground_truth else folder,
        ground_truth=settings.ground_truth,
        splits=tuple(splits) or SPLITS,
        analyzer=settings.analyzer,
    )


def _check_ids_can_be_scored(ids: Sequence[ImageId], ground_truth: Path | None) -> None:
    """Check that the ground truth has all pictures, before they are captioned.

    COCO's annotations are only read for scoring, so ids that are numbers are not checked with them.

    Raises:
        EvaluationError: If the file can't be read, or lacks pictures, naming some of them.
    """
    known = None if ground_truth is None else chair_truth.read(ground_truth).objects
    unknown = [
        image_id
        for image_id in ids
        if (isinstance(image_id, str) if known is None else image_id not in known)
    ]
    if not unknown:
        return
    what = f"{len(unknown)} of {len(ids)} pictures can't be scored: {some_ids(unknown)}"
    if any(isinstance(image_id, str) for image_id in unknown):
        raise EvaluationError(
            f"{what}; COCO's annotations identify pictures by numbers, so pass --ground-truth with "
            'a file that maps these names to objects ({"kitchen.jpg": ["cup"]}), or leave out '
            "--score"
        )
    raise EvaluationError(
        f"{what}; --ground-truth {ground_truth} lacks them: pass the ground truth of their data "
        "set, or leave out --score"
    )


def captions_file(folder: Path, arm: str) -> Path:
    """Return the path of an arm's captions in the report of a run."""
    return folder / f"captions_{arm}.jsonl"


def dump_captions(answers: Sequence[Answer]) -> str:
    """Return captions as JSON lines, in the format of the released CHAIR tools."""
    rows = [{"image_id": answer.item.id, "caption": answer.text} for answer in answers]
    return "".join(json.dumps(row) + "\n" for row in rows)


def next_command(
    folder: Path, arms: Sequence[str], settings: ChairSettings, *, named: bool = False
) -> str:
    """Return the command that scores a run's captions, the last arm's against the baseline's.

    Args:
        folder: Folder of the run's report.
        arms: The run's arms.
        settings: The run's settings.
        named: Whether the image ids are names, which COCO's annotations lack.
    """
    scored = next((name for name in reversed(arms) if name != BASELINE), BASELINE)
    files = ["--cap_file", str(captions_file(folder, scored))]
    if scored != BASELINE and BASELINE in arms:
        files += ["--baseline", str(captions_file(folder, BASELINE))]
    keys = ["--image_id_key", "image_id", "--caption_key", "caption"]
    beside, splits = annotations_of(settings)
    truth = ["--coco_path", str(beside if splits else Path("/path/to/annotations"))]
    if len(splits) == 1:  # rendered scenes
        truth += ["--splits", *splits]
    if named:
        truth = ["--ground-truth", "/path/to/objects_by_name.json"]
    return shlex.join(["python", "eval/chair.py", *files, *keys, *truth])


def annotations_of(settings: ChairSettings) -> tuple[Path, list[str]]:
    """Return the folder of annotations, by default next to the pictures, and its splits."""
    folder = settings.coco_path or settings.pictures_folder().parent / "annotations"
    return folder, [name for name in SPLITS if (folder / f"instances_{name}.json").is_file()]
