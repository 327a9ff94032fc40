"""What all runs that ask a model share: settings resolved, a folder named after them, all answers.

A benchmark brings its prompts and what identifies them. The rest of what decides the answers is put
together here, so that it is the same for all, and the hash in a folder's name misses nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

import models
from eval.errors import EvaluationError
from eval.run.arms import as_record, parse_arm
from eval.run.batches import by_count, by_tokens, token_budget
from eval.run.costs import append_cost
from eval.run.folder import Row, RunFolder, keyed
from eval.run.plan import Arm, Plan
from eval.run.processes import launcher_note, this_place
from eval.run.prompt import Key, Prompt
from eval.run.provenance import images_hash, provenance
from eval.run.runner import answer
from eval.run.settings import RunSettings

GPU_WORKERS: Final = 4
BATCHES: Final = "batches.json"


@dataclass(frozen=True, slots=True)
class ModelRun:
    """What is asked of a model, and the resolved settings that decide its answers.

    Attributes:
        plan: What is asked.
        resolved: The settings; their hash is in the folder's name.
        checkpoint: Path or hub id, of each part where there are several.
        arguments: For `models.load`.
    """

    plan: Plan
    resolved: Row
    checkpoint: str
    arguments: dict[str, Any]

    def folder(self, output_dir: Path, inputs: str) -> RunFolder:
        """Return the run's folder.

        Args:
            output_dir: Folder that all run folders are in.
            inputs: What is asked, as a part of the folder's name.
        """
        decoding = self.plan.decoding
        decoded = "sample" if decoding.do_sample else f"beam{decoding.num_beams}"
        root = output_dir / self.resolved["benchmark"] / self.resolved["model"]
        label = f"{self.resolved['protocol']}-{inputs}-{decoded}"
        return RunFolder(root, label, self.resolved, place=this_place())

    def batches(self, vlm: models.VLM, folder: RunFolder) -> list[list[Prompt]]:
        """Return what is generated together, the same for all processes of the run."""
        plan = self.plan
        if plan.batch_size is not None:
            return by_count(plan.prompts, plan.batch_size)
        budget = folder.settled(BATCHES, {"tokens": token_budget(vlm, plan.decoding)})["tokens"]
        questions = {prompt.question for prompt in plan.prompts}
        new = plan.decoding.max_new_tokens
        lengths = {question: vlm.prompt_length(question) + new for question in questions}
        return by_tokens(plan.prompts, lengths, budget)


def describe(settings: RunSettings) -> models.Description:
    """Resolve model, protocol, device and precision of a run; nothing is loaded."""
    place = this_place()
    device = place.device(settings.device, torch.cuda.device_count())
    arguments = {**settings.model_arguments(), "device": device}
    return models.describe(settings.model, **arguments)


def plan_run(
    settings: RunSettings,
    described: models.Description,
    *,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    inputs: Row,
    text_key: str = "answer",
) -> ModelRun:
    """Put together what is asked of the model and what the answers depend on.

    Args:
        settings: The command's settings.
        described: The model, from `describe`.
        prompts: All prompts.
        max_new_tokens: The protocol's length, which the settings may replace.
        inputs: The benchmark's name, and what identifies its questions.
        text_key: What the text is called where it is recorded.
    Raises:
        EvaluationError: If settings do not go together.
    """
    folder = settings.pictures_folder()
    arms = {name: parse_arm(name) for name in settings.arms()}
    methods = settings.decoding_methods()
    config = settings.eah_config(models.model_settings(settings.model))
    if any(arm.eah for arm in arms.values()) and config.rule == "released_code":
        _check_one_at_a_time(settings.batch_size)
    decoding = models.Decoding(
        max_new_tokens=settings.max_new_tokens or max_new_tokens,
        num_beams=settings.beam,
        do_sample=settings.sample,
    )
    plan = Plan(
        prompts,
        [
            Arm(name, config if arm.eah else None, methods.get(arm.method or ""))
            for name, arm in arms.items()
        ],
        folder,
        decoding,
        batch_size=settings.batch_size,
        num_workers=_workers(settings.num_workers, described.device),
        seed=settings.seed,
        prefix_reuse=settings.prefix_reuse,
        text_key=text_key,
    )
    resolved = {
        **inputs,
        **{key: value for key, value in asdict(described).items() if key != "checkpoint"},
        # Which GPU it is decides no answer.
        "device": described.device.split(":")[0],
        "method": list(arms),
        "eah": asdict(config) if any(arm.eah for arm in arms.values()) else None,
        "decoding": asdict(decoding),
        "batch_size": settings.batch_size or "auto",
        "prefix_reuse": settings.prefix_reuse,
        "seed": settings.seed,
        "pictures": images_hash(folder, [prompt.image for prompt in prompts]),
    }
    if methods:
        resolved["decoding_methods"] = as_record(methods)
        check_methods(methods, decoding)
    exact = {name: getattr(described, name) for name in ("protocol", "device", "dtype")}
    arguments = {**settings.model_arguments(), **exact}
    return ModelRun(plan, resolved, described.checkpoint, arguments)


def _check_one_at_a_time(batch_size: int | None) -> None:
    """Refuse batches in which all prompts but the first would be left as they are.

    Raises:
        EvaluationError: If there may be several prompts in a batch.
    """
    if batch_size != 1:
        raise EvaluationError(
            f"batch_size={batch_size or 'auto'}, but the preset released-code changes the first "
            "prompt of a batch only, as the release does; pass --batch-size 1"
        )


def _workers(wanted: int | None, device: str) -> int:
    """Return how many processes read pictures: beside a CPU none, unless they are asked for."""
    if wanted is not None:
        return wanted
    return 0 if device == "cpu" else GPU_WORKERS


def check_methods(methods: Mapping[str, Any], decoding: models.Decoding) -> None:
    """Refuse beams or sampling that a method does not go with.

    Raises:
        EvaluationError: Naming the method.
    """
    for name, method in methods.items():
        try:
            method.check(decoding)
        except ValueError as error:
            raise EvaluationError(f"method {name}: {error}") from error


def answer_all(
    run: ModelRun,
    folder: RunFolder,
    *,
    key: Callable[[Row], Key],
) -> list[Row] | None:
    """Return all answers of a run, after asking the model what is not recorded yet.

    Args:
        run: What is asked.
        folder: The run's folder, entered.
        key: Returns (method, *prompt key) of a recorded answer.
    Returns:
        The answers; None where another of the run's processes has them.
    """
    plan, place = run.plan, folder.place
    if all(arm.name != "baseline" for arm in plan.arms) and place.index == 0:
        print("note: no baseline arm in this run, so it can't show a gain", file=sys.stderr)
    if (note := launcher_note()) is not None:
        print(note, file=sys.stderr)
    wanted = plan.keys()
    done = keyed(folder.predictions(key), key)
    was_done = all(one in done for one in wanted)
    if not was_done:
        vlm = models.load(run.resolved["model"], **run.arguments)
        if place.index == 0:
            folder.begin(
                {
                    "checkpoint": run.checkpoint,
                    "processes": place.count,
                    **provenance(run.arguments["device"]),
                }
            )
        batches = run.batches(vlm, folder)
        spent = partial(append_cost, folder.path, place=place)
        answer(vlm, plan, batches, done, folder.append, spent, place)
    rows = folder.gathered(key, wanted, found=was_done)
    if rows is None:
        print(
            f"process {place.index} of {place.count} is done; the last one prints the result",
            file=sys.stderr,
        )
    return rows
