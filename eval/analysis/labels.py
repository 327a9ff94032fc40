"""Which prompts' answers hallucinate; from recorded answers, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Caption
from eval.tasks.base import Task, TaskProtocol
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.scoring import ScoreSettings, score
from eval.tasks.yes_no.task import YesNoTask

if TYPE_CHECKING:
    from eval.analysis.observed import Key

WRONG: Final = "a wrong answer to a yes/no question"
OBJECT: Final = "a caption that mentions an object that is not there"


@dataclass(frozen=True, slots=True)
class AnswerLabels:
    """Whether answers hallucinate, by prompt.

    Attributes:
        hallucinates: By picture and text.
        what: What counts as a hallucination, in words.
        left_out: Number of prompts whose answers are neither, and that are left out.
    """

    hallucinates: Mapping[Key, bool]
    what: str
    left_out: int = 0


def answer_labels(task: Task, answers: Sequence[Answer]) -> AnswerLabels:
    """Return which answers hallucinate.

    Args:
        task: The benchmark, with the protocol that the answers were asked by.
        answers: Of one arm.
    Raises:
        EvaluationError: If the benchmark doesn't label hallucinations, or the ground truth lacks a
            picture.
    """
    # Imported here, because POPE needs no captions.
    from eval.tasks.chair.task import ChairCaptions, score_settings

    assert task.protocol is not None
    if isinstance(task, YesNoTask):
        return yes_no_labels(task, answers, task.protocol)
    if isinstance(task, ChairCaptions):
        return caption_labels(task, answers, task.protocol, score_settings(task.settings))
    raise EvaluationError(
        f"{task.name} doesn't say which answers hallucinate; use POPE's questions or captions"
    )


def yes_no_labels(
    task: YesNoTask, answers: Sequence[Answer], protocol: TaskProtocol
) -> AnswerLabels:
    """Return which answers to yes/no questions are wrong.

    An answer that the benchmark's parser can't read claims nothing, and is left out, also where it
    counts as an error; POPE's own parsers read whatever denies nothing as a yes. Parts of a
    benchmark may ask the same question: it counts once, and is left out if it is right in one of
    them and wrong in another.
    """

    def wrong(answer: Answer) -> bool | None:
        return None if task.read(answer) is None else task.right(answer) is False

    prompts = [(one.item.image, task.prompt(one.item, protocol)) for one in answers]
    return _labels(prompts, map(wrong, answers), WRONG)


def caption_labels(
    task: Task, answers: Sequence[Answer], protocol: TaskProtocol, settings: ScoreSettings
) -> AnswerLabels:
    """Return which captions mention an object that CHAIR finds not to be there.

    As in CHAIRs, a caption that names no object hallucinates none.

    Args:
        task: The benchmark.
        answers: The captions.
        protocol: How they were asked for.
        settings: How captions are read, and what they are compared with.
    Raises:
        EvaluationError: If the ground truth lacks one of the pictures.
    """
    analyzer = choose(settings.analyzer, fixes=settings.lexicon_fixes)
    truth = settings.truth(analyzer).objects
    captions = [settings.cut(Caption(one.item.id, one.text)) for one in answers]
    found = [bool(one.hallucinated) for one in score(captions, truth, analyzer)]
    prompts = [(one.item.image, task.prompt(one.item, protocol)) for one in answers]
    return _labels(prompts, found, OBJECT)


def _labels(prompts: Sequence[Key], found: Iterable[bool | None], what: str) -> AnswerLabels:
    """Return one label per prompt; those without one, or with two that differ, are left out."""
    labels: dict[Key, bool | None] = {}
    for prompt, label in zip(prompts, found, strict=True):
        labels[prompt] = label if labels.setdefault(prompt, label) == label else None
    known = {prompt: label for prompt, label in labels.items() if label is not None}
    return AnswerLabels(known, what, len(labels) - len(known))
