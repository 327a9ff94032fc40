"""MMHal-Bench's questions for a model; `eval/mmhal_eval.py` judges the answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.files.writing import write_atomically
from eval.run.flag_parser import FlagParser
from eval.run.settings import RunSettings
from eval.tasks.base import Appendix, TaskProtocol
from eval.tasks.mmhal.questions import ANSWER, NAME, SOURCE, Question, read_questions
from eval.tasks.open_text import OpenTextTask


@dataclass(frozen=True, slots=True)
class MMHalSettings(RunSettings):
    """Settings of MMHal-Bench besides the common ones.

    Attributes:
        questions: The question file.
    """

    questions: Path | None = None


class MMHal(OpenTextTask):
    """96 open questions, each about a picture."""

    name = NAME
    title = "MMHal-Bench, answers to be judged"
    pictures = "data/MMHal/images"
    download_name = "mmhal"
    settings_class = MMHalSettings
    settings: MMHalSettings
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # LLaVA-RLHF's model_vqa_mmhal.py without its test prompt: the bare question.
        ("", name): TaskProtocol(1024)
        for name in ("opera", "official", "chat")
    }

    @classmethod
    def example(cls) -> str:
        """Return the flags of an example of its command."""
        return f"--questions data/MMHal/response_template.json {super().example()}"

    @classmethod
    def add_flags(cls, flags: FlagParser) -> None:
        """Add the flag for the question file."""
        flags.flag("--questions", type=Path, metavar="FILE",
                   help="the benchmark's response_template.json (required)")  # fmt: skip

    def items(self) -> list[Item]:
        """Return the questions in order, cut to the limit; an id is the index in the file."""
        found = self._questions()[: self.settings.limit]
        for one in found:
            if not one.image:
                raise EvaluationError(
                    f"{self.settings.questions}, entry {one.position + 1} has no picture; it needs "
                    f"an image_src, as in {SOURCE}"
                )
        return [Item(one.position, one.image, one.text) for one in found]

    def write_files(self, report: Path, arms: Mapping[str, Sequence[Answer]]) -> Appendix:
        """Write each arm's answers in the benchmark's layout, and return the next command."""
        if self.settings.questions is None:
            return Appendix()
        questions, files = self._questions(), []
        for arm, answers in arms.items():
            texts = {answer.item.id: answer.text for answer in answers}
            rows = [{**one.record, ANSWER: texts.get(one.position)} for one in questions]
            files.append(report / f"answers_{arm}.json")
            write_atomically(files[-1], json.dumps(rows, indent=2) + "\n")
        words = ["python", "eval/mmhal_eval.py", "--answers", *map(str, files)]
        return Appendix(f"next: {shlex.join([*words, '--template', 'eval_gpt_mmhal.py'])}")

    def _questions(self) -> list[Question]:
        if self.settings.questions is None:
            raise EvaluationError(f"no questions: pass {SOURCE} as --questions")
        return read_questions(self.settings.questions)
