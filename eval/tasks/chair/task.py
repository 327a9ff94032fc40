"""Captions for CHAIR: what a model says of pictures when it is asked to describe them."""

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
        question: What the model is asked; None for that of OPERA's and EAH's chair_eval.py.
        image_ids: File of the image ids to caption, in order; None for a sample of the folder.
        num_images: Size of the sample; None for 500.
        score: Whether the captions are scored, too.
        coco_path: Folder of COCO's annotations for it; None for that beside the pictures.
        ground_truth: A file of objects by image id instead.
        analyzer: How captions are read.
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
            raise EvaluationError(f"question={self.question!r} is empty; leave it out or ask")
        if self.num_images is not None and self.num_images < 1:
            raise EvaluationError(f"num_images={self.num_images}, but at least 1 is needed")
        if not self.score and (self.ground_truth is not None or self.analyzer != "auto"):
            raise EvaluationError(
                "--ground-truth and --analyzer say how captions are scored; add --score, or leave "
                "them out"
            )
        if self.analyzer not in ANALYZERS:
            raise EvaluationError(
                f"analyzer {self.analyzer!r} is unknown: {nearest(self.analyzer, ANALYZERS)}"
            )
        if self.image_ids is not None and self.num_images is not None:
            raise EvaluationError(
                f"image_ids={self.image_ids} names the pictures, so num_images={self.num_images} "
                "can't choose them; give one of the two (limit cuts a list)"
            )


class ChairCaptions(OpenTextTask):
    """Pictures to describe, and how long the descriptions are."""

    name = "chair"
    title = "captions for CHAIR"
    unit = "caption"
    settings_class = ChairSettings
    settings: ChairSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # OPERA's and EAH's chair_eval.py.
        ("", "opera"): TaskProtocol(512),
        # No model publishes CHAIR: the same question and length, under the model's own prompt.
        ("", "official"): TaskProtocol(512),
        # Any model's chat template. CHAIR asks for no short answer.
        ("", "chat"): TaskProtocol(512),
    }
    draws_pictures = True

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flags of captioning."""
        flags.flag("--question", metavar="TEXT", help=f"what the model is asked ({QUESTION})")
        flags.flag("--image-ids", type=Path, metavar="FILE", help="ids, or captions, of pictures")
        flags.flag("--num-images", type=int, help=f"pictures drawn from the folder ({NUM_IMAGES})")
        flags.flag("--score", action="store_true", help="score the captions, too, as chair.py does")
        flags.flag("--coco_path", type=Path, help="--score: annotations (beside the pictures)")
        flags.flag("--ground-truth", type=Path, help="--score: a file of objects instead")
        flags.flag("--analyzer", help=f"--score: how captions are read, {', '.join(ANALYZERS)}")

    def items(self) -> list[Item]:
        """Return the pictures of the run, in order, cut to the limit."""
        settings = self.settings
        folder = settings.pictures_folder()
        if settings.score:
            score_settings(settings)  # what is missing is said now, not when all is asked
        pictures = pictures_in(folder)
        if settings.image_ids is not None:
            listed = read_ids(settings.image_ids)[: settings.limit]
            ids = find_ids(listed, pictures, path=settings.image_ids, folder=folder)
        else:
            count = settings.num_images or NUM_IMAGES
            if len(pictures) < count:
                print(
                    f"note: {folder} holds {len(pictures)} pictures, fewer than {count}: "
                    "the sample is all of them",
                    file=sys.stderr,
                )
            ids = sample_ids(pictures, count, seed=settings.seed)[: settings.limit]
        if settings.score:
            _check_ids_can_be_scored(ids, settings.ground_truth)
        return [Item(i, pictures[i], settings.question or QUESTION) for i in ids]

    def reads(self) -> list[Path]:
        """Return the annotations that score the captions."""
        return [annotations_of(self.settings)[0]] if self.settings.score else []

    def asked(self) -> dict[str, Any]:
        """Return the question."""
        return self.facts()

    def label(self, items: Sequence[Item]) -> str:
        """Return the number of pictures."""
        return f"{len(items)}images"

    def facts(self) -> dict[str, Any]:
        """Return the question."""
        return {"question": self.settings.question or QUESTION}

    def after(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write each arm's captions and the image ids; score the captions if asked to."""
        some = next(iter(arms.values()))
        ids = "".join(f"{answer.item.id}\n" for answer in some)
        write_atomically(report / "image_ids.txt", ids)
        for arm, answers in arms.items():
            write_atomically(captions_file(report, arm), dump_captions(answers))
        if not self.settings.score:
            named = any(isinstance(answer.item.id, str) for answer in some)
            command = next_command(report, list(arms), self.settings, named=named)
            return Appendix(f"next: {command}")
        # Here, because it loads what --help and plain captioning do without.
        from eval.tasks.chair.output import score_captions

        captions = {
            arm: [Caption(answer.item.id, answer.text) for answer in answers]
            for arm, answers in arms.items()
        }
        result = score_captions(captions, score_settings(self.settings), source=report.parent)
        return Appendix(result.text(), {"chair": result.as_dict()})

    def further_scorers(self) -> Sequence[Scorer]:
        """Return CHAIR itself if captions are scored."""
        if not self.settings.score:
            return ()
        from eval.tasks.chair.repeats import CaptionScorer

        return (CaptionScorer(score_settings(self.settings)),)


def score_settings(settings: ChairSettings) -> ScoreSettings:
    """Return how `--score` scores captions.

    Raises:
        EvaluationError: If there are no annotations.
    """
    folder, splits = annotations_of(settings)
    if settings.ground_truth is None and not splits:
        raise EvaluationError(
            f"captions are scored with COCO's annotations, but {folder} holds none "
            "(instances_val2014.json, ...); pass --coco_path, or --ground-truth with a file of "
            "objects by image id"
        )
    return ScoreSettings(
        coco_path=None if settings.ground_truth else folder,
        ground_truth=settings.ground_truth,
        splits=tuple(splits) or SPLITS,
        analyzer=settings.analyzer,
    )


def _check_ids_can_be_scored(ids: Sequence[ImageId], ground_truth: Path | None) -> None:
    """Check that pictures are in the ground truth, before they are captioned.

    Of pictures that are known by their numbers, COCO's annotations are read when they are scored.

    Raises:
        EvaluationError: If the file can't be read, or naming the first that is not in it, and how
            many are not.
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
            f"{what}; COCO's annotations know pictures by their numbers, so pass --ground-truth "
            'with a file that maps these names to objects ({"kitchen.jpg": ["cup"]}), or don\'t '
            "score"
        )
    raise EvaluationError(
        f"{what}; --ground-truth {ground_truth} has nothing on them: pass that of the data set "
        "that they are from, or don't score"
    )


def captions_file(folder: Path, arm: str) -> Path:
    """Return the path of an arm's captions in the report of a run."""
    return folder / f"captions_{arm}.jsonl"


def dump_captions(answers: Sequence[Answer]) -> str:
    """Return captions in the line format of the released CHAIR tools."""
    rows = [{"image_id": answer.item.id, "caption": answer.text} for answer in answers]
    return "".join(json.dumps(row) + "\n" for row in rows)


def next_command(
    folder: Path, arms: Sequence[str], settings: ChairSettings, *, named: bool = False
) -> str:
    """Return the command that scores a run's captions, the last arm's against the baseline's.

    Args:
        folder: The run's report.
        arms: The run's arms.
        settings: The run's.
        named: Whether pictures have names for ids, which COCO's annotations do not know.
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
    """Return the folder of annotations, by default that beside the pictures, and its splits."""
    folder = settings.coco_path or settings.pictures_folder().parent / "annotations"
    return folder, [name for name in SPLITS if (folder / f"instances_{name}.json").is_file()]
