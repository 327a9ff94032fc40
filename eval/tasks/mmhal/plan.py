"""Plan a judging run of MMHal-Bench: its requests, and the folder named after its settings."""

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
LONE: Final = "1"  # order of a request with a single answer


@dataclass(frozen=True, slots=True)
class MMHalPlan:
    """All requests of a run, and the settings that determine the name of its folder.

    Attributes:
        requests: By arm and index of the question. Equal answers share one request.
        settings: Settings that decide the replies.
    """

    requests: dict[str, dict[int, Request]]
    settings: dict[str, Any]

    @property
    def all(self) -> list[Request]:
        """The requests of all arms."""
        return [request for of in self.requests.values() for request in of.values()]

    def folder(self, output_dir: Path) -> RunFolder:
        """Return the run folder inside the folder of all run folders."""
        model = re.sub(r"[^\w.-]+", "-", self.settings["judge_model"])
        label = f"mmhal-{self.settings['questions']['count']}questions-{len(self.requests)}arms"
        return RunFolder(output_dir / "judge" / model, label, self.settings)


def plan_ratings(
    questions: Sequence[Question], arms: Sequence[Answers], template: Template, config: JudgeConfig
) -> MMHalPlan:
    """Plan the requests: each answer in the template, without a picture.

    Raises:
        EvaluationError: If an answer is too long to send.
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
