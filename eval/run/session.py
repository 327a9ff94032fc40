"""One run from its settings to its answers: folder, arms, and questions to the model.

A task provides its questions. Everything else that affects the answers is assembled here, so that
it is the same for all tasks, and is included in the hash in the folder's name.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from PIL import Image

import models
from eval.errors import EvaluationError
from eval.files.answers import Item, Key
from eval.run.arm_folder import ArmFolder
from eval.run.arms import arms_of
from eval.run.folder import RunFolder, questions_record
from eval.run.pixels import pictures_hash
from eval.run.plan import AskedArm, Plan, Prompt
from eval.run.processes import this_process
from eval.run.settings import RunSettings
from eval.run.steps import check_steps
from eval.tasks.base import Task
from models.errors import ModelError, printable
from models.tokenizer import check_characters

GPU_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Session:
    """A run: the questions to a model, and the resolved settings that affect its answers.

    Attributes:
        plan: What to ask and how.
        folder: The run folder.
        described: The model, which is not loaded yet.
        arguments: Arguments of `models.load`.
        settings: Settings of the command.
    """

    plan: Plan
    folder: RunFolder
    described: models.Description
    arguments: dict[str, Any]
    settings: RunSettings

    def arm_folder(self, arm: AskedArm) -> ArmFolder:
        """Return the folder of an arm."""
        process = self.folder.process
        return ArmFolder(self.folder.path, arm.name, None if process.is_alone else process.index)

    def question_keys(self) -> list[Key]:
        """Return the key of each question."""
        return [prompt.key for prompt in self.plan.prompts]

    def status(self) -> list[tuple[str, int]]:
        """Return each arm's name and how many of its answers are recorded and will be kept."""
        wanted = set() if self.settings.fresh else set(self.question_keys())
        return [
            (arm.name, len(wanted & self.arm_folder(arm).answers().keys()))
            for arm in self.plan.arms
        ]


def describe(settings: RunSettings) -> models.Description:
    """Resolve model, protocol, device and precision of a run; nothing is loaded."""
    device = this_process().device(settings.device, torch.cuda.device_count())
    return models.describe(settings.model, **{**settings.model_arguments(), "device": device})


def show_prompt(session: Session, question: str, image: Image.Image) -> models.ShownPrompt:
    """Return the prompt for a question about a picture; no model is loaded."""
    return models.show_prompt(session.settings.model, question, image, **session.arguments)


def plan_session(
    task: Task,
    items: Sequence[Item],
    described: models.Description,
    left_out: Sequence[str] = (),
) -> Session:
    """Assemble the questions to the model and everything that the answers depend on.

    Args:
        task: The benchmark, with its protocol.
        items: Its questions.
        described: The model, from `describe`.
        left_out: Unreadable pictures, whose questions were left out.
    Raises:
        EvaluationError: If settings are incompatible.
    """
    settings, protocol = task.settings, task.protocol
    assert protocol is not None
    pictures = settings.pictures_folder()
    length = settings.max_new_tokens or protocol.max_new_tokens
    decoding = models.Decoding(
        max_new_tokens=1 if task.likelihood else length,
        num_beams=settings.beam,
        do_sample=settings.sample,
    )
    arms = [AskedArm(arm, arm.decoding()) for arm in arms_of(settings)]
    if task.likelihood:
        _check_likelihood(arms, decoding)
    _check_arms(arms, decoding, settings.batch_size)
    check_steps(
        settings.compile,
        arms,
        decoding.num_beams,
        decoding.max_new_tokens,
        described.device,
    )
    prompts = [Prompt(item, task.prompt(item, protocol)) for item in items]
    _check_prompts(prompts)
    plan = Plan(
        prompts,
        arms,
        pictures,
        decoding,
        batch_size=settings.batch_size,
        num_workers=_workers(settings.num_workers, described.device),
        seed=settings.seed,
        prefix_reuse=settings.prefix_reuse,
        compile=settings.compile,
        unit=task.unit,
        device=device_name(described.device),
        p_yes=task.wants_p_yes,
        likelihood=task.likelihood,
    )
    # Moving the checkpoint does not change the answers. Without a system message there is no entry,
    # as for models that do not support one.
    unrecorded = {"checkpoint"} if described.system is not None else {"checkpoint", "system"}
    resolved = {
        "benchmark": task.name,
        "questions": questions_record([(p.item, p.text) for p in plan.prompts]),
        **task.recorded_settings(),
        **{key: value for key, value in asdict(described).items() if key not in unrecorded},
        # The GPU's number does not affect answers.
        "device": described.device.split(":")[0],
        "decoding": asdict(decoding),
        "pictures": pictures_hash(pictures, {item.image for item in items}),
    }
    if left_out:
        resolved["left_out"] = list(left_out)
    if decoding.do_sample:
        # Each batch is sampled with its own seed, so the batch size affects the answers here.
        resolved |= {"seed": settings.seed, "batch_size": settings.batch_size or "auto"}
    beams = f"-beam{decoding.num_beams}" if decoding.num_beams > 1 else ""
    how = "-likelihood" if task.likelihood else "-sample" if decoding.do_sample else beams
    root = settings.output_dir / task.name / described.model
    label = f"{described.protocol}-{task.label(items)}{how}"
    exact = {name: getattr(described, name) for name in ("protocol", "device", "dtype")}
    return Session(
        plan,
        RunFolder(root, label, resolved, this_process()),
        described,
        {**settings.model_arguments(), **exact},
        settings,
    )


def _check_likelihood(arms: Sequence[AskedArm], decoding: models.Decoding) -> None:
    """Refuse arms that do not score the first token separately.

    Raises:
        EvaluationError: Naming the arm.
    """
    for arm in arms:
        method = arm.decoding
        if method is None:
            continue
        try:
            method.check(decoding)
            known = method.scores_first_token
        except ValueError:  # a beam search
            known = False
        if not known:
            raise EvaluationError(
                f"method {arm.name}: --scoring likelihood needs a method that scores the first "
                f"token by itself, and {method.title} does not; leave the arm out, or use "
                "--scoring generate"
            )


def _check_arms(
    arms: Sequence[AskedArm], decoding: models.Decoding, batch_size: int | None
) -> None:
    """Refuse beams, sampling and batch sizes that an arm does not support.

    Raises:
        EvaluationError: Naming the arm.
    """
    for arm in arms:
        if arm.decoding is not None:
            try:
                arm.decoding.check(decoding)
            except ValueError as error:
                raise EvaluationError(f"method {arm.name}: {error}") from error
            if arm.decoding.runs_alone and batch_size != 1:
                raise EvaluationError(
                    f"batch_size={batch_size or 'auto'}, but with the settings of {arm.name} the "
                    "prompts of a batch affect each other's answers; pass --batch-size 1"
                )
            if arm.decoding.depends_on_history and not this_process().is_alone:
                raise EvaluationError(
                    f"method {arm.name}: answers depend on the first question of a process, but "
                    "several processes share the run; start one"
                )
        config = arm.arm.eah
        if config is not None and config.rule == "released_code" and batch_size != 1:
            raise EvaluationError(
                f"batch_size={batch_size or 'auto'}, but the rule released-code, like the release, "
                "changes only the first prompt of a batch; pass --batch-size 1"
            )


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    """Refuse questions that tokenizers can't read, before a model is loaded.

    Raises:
        EvaluationError: Naming the question.
    """
    for prompt in prompts:
        try:
            check_characters(prompt.text)
        except ModelError as error:
            part = f" of {prompt.item.part}" if prompt.item.part else ""
            raise EvaluationError(
                f"question {printable(prompt.item.id)}{part} about {printable(prompt.image)}: "
                f"{error}"
            ) from error


def _workers(wanted: int | None, device: str) -> int:
    """Return how many processes read pictures: by default none if the model runs on a CPU."""
    if wanted is not None:
        return wanted
    return 0 if device == "cpu" else GPU_WORKERS


def device_name(device: str) -> str:
    """Return a readable name of the device."""
    if device.startswith("cuda"):
        return f"{device}: {torch.cuda.get_device_name(device)}"
    if device == "auto":
        return f"{torch.cuda.device_count()} GPUs"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"
