"""What a judging run asks, and the folder that is named after all that decides the replies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.errors import EvaluationError
from eval.run.folder import RunFolder
from eval.tasks.chair.images import ids_hash, pictures_in
from eval.tasks.judge.answers import Pair
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.pictures import read_pictures
from eval.tasks.judge.references import read_references
from eval.tasks.judge.requests import ORDERS, Request, plan_requests
from eval.tasks.judge.store import JUDGEMENTS


@dataclass(frozen=True, slots=True)
class JudgeInputs:
    """Where a judging run finds things, besides the answers.

    Attributes:
        data_path: Folder of the pictures; needed unless the judge sees none.
        coco_path: Folder of COCO's instances files, for the text mode.
        ground_truth: Objects by image id, instead.
        single_order: Judge in the order of the arms only, as the paper does.
    """

    data_path: Path | None = None
    coco_path: Path | None = None
    ground_truth: Path | None = None
    single_order: bool = False

    def pictures_folder(self) -> Path:
        """Return the folder of the pictures.

        Raises:
            EvaluationError: If none is given, or it is not a folder.
        """
        if self.data_path is None:
            raise EvaluationError(
                "no pictures: pass --data-path, such as /data/COCO/val2014; a judge without "
                "pictures is --judge-mode text"
            )
        if not self.data_path.is_dir():
            raise EvaluationError(
                f"--data-path {self.data_path} is not a folder; pass the pictures' folder"
            )
        return self.data_path


@dataclass(frozen=True, slots=True)
class Plan:
    """All requests of a run, and the settings that its folder is named after."""

    requests: Sequence[Request]
    settings: dict[str, Any]

    @property
    def both_orders(self) -> bool:
        """Whether each pair of answers is judged in both orders."""
        return len(self.settings["orders"]) > 1

    def folder(self, output_dir: Path) -> RunFolder:
        """Return the run's folder.

        Args:
            output_dir: Folder that all run folders are in.
        """
        settings = self.settings
        model = re.sub(r"[^\w.-]+", "-", settings["judge_model"])
        count = settings["images"]["count"]
        orders = "both" if self.both_orders else "single"
        label = f"{settings['judge_protocol']}-{settings['judge_mode']}-{count}images-{orders}"
        return RunFolder(output_dir / "judge" / model, label, settings, rows=JUDGEMENTS)


def plan_judging(pair: Pair, config: JudgeConfig, inputs: JudgeInputs) -> Plan:
    """Return what is asked, after looking at every picture."""
    references = None
    pictures = {}
    if config.judge_mode == "text":
        if inputs.data_path is not None:  # For the report, which is written when all is paid.
            inputs.pictures_folder()
        references = read_references(
            pair.ids, coco_path=inputs.coco_path, ground_truth=inputs.ground_truth
        )
    else:
        folder = inputs.pictures_folder()
        pictures = read_pictures(folder, pictures_in(folder), pair.ids, size=config.image_size)
    orders = ORDERS[:1] if inputs.single_order else ORDERS
    requests = plan_requests(
        config, endpoint(config), pair, orders=orders, pictures=pictures, references=references
    )
    names = ("judge_model", "judge_protocol", "judge_mode", "image_size", "image_detail",
             "max_output_tokens", "temperature", "reasoning_effort")  # fmt: skip
    settings = {
        "benchmark": "judge",
        "endpoint": endpoint(config),
        **{name: getattr(config, name) for name in names},
        "orders": orders,
        "answers": [{"name": arm.name, "sha256": arm.hash()} for arm in (pair.first, pair.second)],
        "images": {"count": len(pair.ids), "sha256": ids_hash(pair.ids)},
        "pictures": {str(one): picture.sha256 for one, picture in pictures.items()},
        "references": None if references is None else references.hash(),
    }
    return Plan(requests, settings)
