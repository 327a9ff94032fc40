"""What a judging run of MMHal-Bench asks, and the folder that is named after it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eval.run.folder import RunFolder
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.pricing import request_of
from eval.tasks.judge.requests import Request

if TYPE_CHECKING:
    from eval.tasks.mmhal.answers import Answers
    from eval.tasks.mmhal.questions import Question
    from eval.tasks.mmhal.template import Template

# Settings of the judge that decide the replies.
DECISIVE: Final = ("judge_model", "max_output_tokens", "temperature", "reasoning_effort")
LONE: Final = "1"  # the order of one answer


@dataclass(frozen=True, slots=True)
class MMHalPlan:
    """All requests of a run, and the settings that its folder is named after.

    Attributes:
        requests: By arm and the place of the question. Equal answers are one request to the judge.
        settings: What decides the replies.
    """

    requests: dict[str, dict[int, Request]]
    settings: dict[str, Any]

    @property
    def all(self) -> list[Request]:
        """The requests of all arms."""
        return [request for of in self.requests.values() for request in of.values()]

    def folder(self, output_dir: Path) -> RunFolder:
        """Return the run's folder below the folder that all run folders are in."""
        model = re.sub(r"[^\w.-]+", "-", self.settings["judge_model"])
        label = f"mmhal-{self.settings['questions']['count']}questions-{len(self.requests)}arms"
        return RunFolder(output_dir / "judge" / model, label, self.settings)


def plan_ratings(
    questions: Sequence[Question], arms: Sequence[Answers], template: Template, config: JudgeConfig
) -> MMHalPlan:
    """Return what is asked: each answer in the template, and no picture.

    Raises:
        EvaluationError: If an answer is longer than any that is sent.
    """
    requests = {}
    for arm in arms:
        requests[arm.name] = {
            one.position: request_of(
                config,
                one.position,
                LONE,
                template.fill(
                    ", ".join(one.labels), one.text, one.reference, arm.texts[one.position]
                ),
                what=f"template and answer of {arm.name} to question",
            )
            for one in questions
            if one.position in arm.texts
        }
    asked = [[one.image, one.text, one.reference, one.labels, one.kind] for one in questions]
    settings = {
        "benchmark": "judge",
        "protocol": "mmhal",
        "endpoint": endpoint(config),
        **{name: getattr(config, name) for name in DECISIVE},
        "template": template.sha256,
        "questions": {
            "count": len(questions),
            "sha256": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        },
        "answers": [{"name": arm.name, "sha256": arm.hash()} for arm in arms],
    }
    return MMHalPlan(requests, settings)
