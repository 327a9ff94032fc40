"""The settings of `eval/sinks.py`, and the questions that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from eah.settings import EAHConfig
from eval.errors import EvaluationError
from eval.run.arms import arms_of, with_arms
from eval.run.settings import RunSettings
from eval.tasks.base import Task

GAMMAS: Final = (0.15, 0.20)  # the paper's analysis
NUM_IMAGES: Final = 200
BUILD_IMAGES: Final = 500
# Settings of commands that compare arms; here they would do nothing.
UNUSED: Final = ("method", "sweep", "reference", "method_settings", "repeats", "wide",
                 "scale_factor", "threshold", "num_attn_candidates", "penalty_weights")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SinkSettings(RunSettings):
    """Settings of the analysis, besides the common ones; one model each.

    Attributes:
        num_images: Number of pictures; None for 200.
        image_ids: File of the image ids to look at, in order; None for a sample.
        question: What is asked about each picture; None for CHAIR's question. POPE asks its own.
        captions: Whether answers are generated and scored by CHAIR.
        coco_path: Folder of COCO's annotations for it; None for the one next to the pictures.
        ground_truth: A file of objects by image id instead.
        analyzer: How captions are read.
        pope_type: Types of POPE's questions to ask instead; None for none.
        pope_path: Folder of the question files, or one file.
        build_from: COCO instances to build them from.
        build_images: Pictures to ask about when building.
        thresholds: Thresholds to count sinks with besides EAH's.
        gammas: Least densities of a dense head.
        ablate: Settings of EAH to try, one at a time, as "layers=0,1,2".
        choose_on: Number of further pictures to choose among them on, which are not reported.
        pictures: Pictures to show; None for the first.
        report: File for the page, too.
    """

    num_images: int | None = None
    image_ids: Path | None = None
    question: str | None = None
    captions: bool = False
    coco_path: Path | None = None
    ground_truth: Path | None = None
    analyzer: str = "auto"
    pope_type: tuple[str, ...] | None = None
    pope_path: Path | None = None
    build_from: Path | None = None
    build_images: int = BUILD_IMAGES
    thresholds: tuple[float, ...] = ()
    gammas: tuple[float, ...] = GAMMAS
    ablate: tuple[str, ...] = ()
    choose_on: int | None = None
    pictures: tuple[str, ...] | None = None
    report: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            EvaluationError: Naming the setting, its value and what is allowed.
        """
        RunSettings.__post_init__(self)
        for name in UNUSED:
            if getattr(self, name) != getattr(RunSettings(), name):
                raise EvaluationError(
                    f"{name} compares ways to answer, which eval/sinks.py does by --ablate alone; "
                    "leave it out"
                )
        for name in ("num_images", "choose_on"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"{name}={value}, but at least 1 is needed")
        for gamma in self.gammas:
            if not 0 < gamma <= 1:
                raise EvaluationError(f"gammas has {gamma}, but a density is a share in (0, 1]")
        if not self.gammas or len(set(self.gammas)) < len(self.gammas):
            raise EvaluationError(f"gammas={list(self.gammas)}: name at least one, each once")
        if self.captions and self.pope_type is not None:
            raise EvaluationError(
                "--captions and --pope-type are two kinds of answers; give one of them"
            )
        self._check_used()

    def _check_used(self) -> None:
        """Refuse settings that would change nothing.

        Raises:
            EvaluationError: Naming the setting, and what it needs.
        """
        is_pope, answers = self.pope_type is not None, "--captions or --pope-type"
        analyzer = None if self.analyzer == "auto" else self.analyzer
        built = None if self.build_images == BUILD_IMAGES else self.build_images
        for name, given, needs, fits in (
            ("pope_path", self.pope_path, "--pope-type", is_pope),
            ("build_from", self.build_from, "--pope-type", is_pope),
            ("build_images", built, "--build-from", self.build_from is not None),
            ("analyzer", analyzer, "--captions", self.captions),
            ("beam", self.beam if self.beam > 1 else None, answers, self.has_answers),
            ("sample", self.sample or None, answers, self.has_answers),
            ("max_new_tokens", self.max_new_tokens, answers, self.has_answers),
            ("coco_path", self.coco_path, "--captions", self.captions),
            ("ground_truth", self.ground_truth, "--captions", self.captions),
            ("choose_on", self.choose_on, "--ablate", bool(self.ablate)),
            ("ablate", self.ablate or None, answers, self.has_answers),
        ):
            if given is not None and not fits:
                flag = name.replace("_", "-")
                raise EvaluationError(f"--{flag} needs {needs}; add that, or leave --{flag} out")
        for flag, is_given, own in (
            ("--question", self.question is not None, "its own questions"),
            ("--image-ids", self.image_ids is not None, "questions that name their pictures"),
        ):
            if is_given and is_pope:
                raise EvaluationError(
                    f"{flag} and --pope-type, which has {own}; leave one of them out"
                )
        if self.image_ids is not None and self.num_images is not None:
            raise EvaluationError(
                f"--image-ids {self.image_ids} names the pictures, so --num-images can't choose "
                "them; give one of the two (--limit cuts a list)"
            )

    @property
    def has_answers(self) -> bool:
        """Whether the model also answers."""
        return self.captions or self.pope_type is not None

    @property
    def wanted_pictures(self) -> int:
        """Number of pictures, including those to choose on."""
        return (self.num_images or NUM_IMAGES) + (self.choose_on or 0)

    def task(self, arms: Sequence[str] = ()) -> Task:
        """Return the benchmark whose questions are asked.

        Args:
            arms: Recorded names of the arms to ask; empty to ask none.
        Raises:
            EvaluationError: If a setting is not allowed there.
        """
        common = {item.name: getattr(self, item.name) for item in fields(RunSettings)}
        common |= {"json": None}
        if self.pope_type is not None:
            from eval.tasks.pope.task import Pope, PopeSettings

            questions = PopeSettings(
                **common,
                pope_type=self.pope_type,
                pope_path=self.pope_path,
                build_from=self.build_from,
                build_images=self.build_images,
            )
            return Pope(with_arms(questions, arms) if arms else questions)
        from eval.tasks.chair.task import ChairCaptions, ChairSettings

        pictures = ChairSettings(
            **common,
            question=self.question,
            image_ids=self.image_ids,
            num_images=None if self.image_ids else self.wanted_pictures,
            score=self.captions,
            coco_path=self.coco_path,
            ground_truth=self.ground_truth,
            analyzer=self.analyzer,
        )
        return ChairCaptions(with_arms(pictures, arms) if arms else pictures)

    def eah(self) -> EAHConfig:
        """Return EAH's settings: those of the model's config, with what flags change.

        Raises:
            EvaluationError: If a setting is not allowed.
        """
        (arm,) = arms_of(replace(self.task().settings, method=("eah",)))
        assert arm.eah is not None
        return arm.eah
