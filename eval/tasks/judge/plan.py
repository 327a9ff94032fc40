"""Plan a judging run: its requests, and its folder, named after all settings that decide replies.

There is one request per picture and order of the answers. Its key is a hash of text, picture,
model, endpoint and parameters. A key that has been answered is never asked again. If the two texts
of a picture are equal, it has no request: a judge could only prefer one position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.files.image_ids import ImageId
from eval.run.folder import RunFolder
from eval.tasks.chair.images import ids_hash
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.inputs import (
    JudgeInputs,
    References,
    read_pictures,
    read_references,
)
from eval.tasks.judge.pricing import request_of
from eval.tasks.judge.protocols import render
from eval.tasks.judge.requests import ORDERS, Pair, Picture, Request

# Settings that decide the replies.
DECISIVE: Final = ("judge_model", "judge_protocol", "judge_mode", "image_size", "image_detail",
                   "max_output_tokens", "temperature", "reasoning_effort")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """All requests of a run, and the settings that determine the name of its folder."""

    requests: Sequence[Request]
    settings: dict[str, Any]

    @property
    def both_orders(self) -> bool:
        """Whether each pair of answers is judged in both orders."""
        return len(self.settings["orders"]) > 1

    def folder(self, output_dir: Path) -> RunFolder:
        """Return the run folder inside the folder of all run folders."""
        settings = self.settings
        model = re.sub(r"[^\w.-]+", "-", settings["judge_model"])
        count = settings["images"]["count"]
        orders = "both" if self.both_orders else "single"
        label = f"{settings['judge_protocol']}-{settings['judge_mode']}-{count}images-{orders}"
        return RunFolder(output_dir / "judge" / model, label, settings)


def plan_judging(pair: Pair, config: JudgeConfig, inputs: JudgeInputs) -> Plan:
    """Plan the requests, after reading every picture, including those with equal texts.

    Raises:
        EvaluationError: If pictures or objects are missing or can't be read.
    """
    references = None
    pictures: dict[ImageId, Picture] = {}
    if config.judge_mode == "text":
        if inputs.data_path is not None:  # Checked before paying: the report needs it at the end.
            inputs.pictures_folder()
        references = read_references(inputs, pair.ids)
    else:
        pictures = read_pictures(inputs, pair.ids, size=config.image_size)
    orders = ORDERS[:1] if inputs.single_order else ORDERS
    equal = set(pair.equal)
    requests = [
        _request(config, pair, image_id, order, pictures.get(image_id), references)
        for image_id in pair.ids
        if image_id not in equal
        for order in orders
    ]
    settings = {
        "benchmark": "judge",
        "endpoint": endpoint(config),
        **{name: getattr(config, name) for name in DECISIVE},
        "orders": orders,
        "answers": [{"name": arm.name, "sha256": arm.hash()} for arm in pair.arms],
        "images": {"count": len(pair.ids), "sha256": ids_hash(pair.ids)},
        "pictures": {str(one): picture.sha256 for one, picture in pictures.items()},
        "references": None if references is None else references.hash(),
    }
    return Plan(requests, settings)


def _request(
    config: JudgeConfig,
    pair: Pair,
    image_id: ImageId,
    order: str,
    picture: Picture | None,
    references: References | None,
) -> Request:
    texts = {"1": pair.first.texts[image_id], "2": pair.second.texts[image_id]}
    text = render(
        config.judge_protocol,
        *(texts[place] for place in order),
        objects=None if references is None else references.objects[image_id],
        kinds=() if references is None else references.kinds,
    )
    return request_of(config, image_id, order, text, picture, what="the two answers about image id")
