"""POPE and CHAIR as the commands run them, with and without shared prefixes, and the released way.

Everything from the picture files on is measured: decoding, encoding, prefill and generation. The
released way is what the authors' release does: one prompt at a time, the picture encoded for each,
eager attention in all layers, and in one layer a Python loop over the heads' maps. It takes minutes
for what the others do in seconds, and as long for each prompt, so it is asked a few of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from eah.settings import EAHConfig
from eval.files.answers import BASELINE, Answer, Item, Key
from eval.run.arm_settings import EAH
from eval.run.arms import Arm
from eval.run.plan import AskedArm, Plan, Prompt, batches_by_count
from eval.run.processes import Process
from eval.run.runner import Recorder, ask_batches
from eval.run.session import GPU_WORKERS
from eval.run.steps import NEVER
from models import VLM, Decoding
from scripts.bench import rounds
from scripts.bench.model import RELEASED
from scripts.bench.released_model import SPAN, released_model

OBJECTS = ("cat", "dog", "car", "tree", "person", "bottle")


@dataclass(frozen=True, slots=True)
class EvalShape:
    """How much is asked.

    Attributes:
        pictures: Pictures of a round.
        batch: Prompts that are generated together.
        answer: Tokens of an answer of POPE.
        caption: Tokens of a caption.
        released: Questions and captions that the released way is asked, of all.
    """

    pictures: int = 8
    batch: int = 48
    answer: int = 10
    caption: int = 32
    released: tuple[int, int] = (12, 1)


@dataclass(frozen=True, slots=True)
class AskedArms:
    """Arms of an evaluation, and how some are measured in another way than the others."""

    arms: dict[str, rounds.Arm]
    notes: dict[str, str]


def write_pictures(folder: Path, count: int) -> list[str]:
    """Write noise of COCO's usual size, and return the names."""
    names = [f"{index}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        Image.effect_noise((640, 480), 50 + index).convert("RGB").save(folder / name)
    return names


def pope_arms(vlm: VLM, config: EAHConfig, shape: EvalShape, folder: Path) -> AskedArms:
    """Return one round of POPE, six questions per picture, in each way."""
    prompts = [
        _prompt(name, f"Is there a {thing} in the image?")
        for name in write_pictures(folder, shape.pictures)
        for thing in OBJECTS
    ]
    plan = _plan(prompts, shape, folder, shape.answer, vlm)
    arms: dict[str, rounds.Arm] = {}
    for name, arm in _asked_arms(config).items():
        own = replace(plan, arms=[arm])
        arms[name] = partial(_run, vlm, own, "questions/s")
        arms[f"{name}, no reuse"] = partial(
            _run, vlm, replace(own, prefix_reuse=False), "questions/s"
        )
        arms |= _without_steps(name, vlm, own, "questions/s")
    return _with_released(arms, vlm, plan, shape.released[0], "questions/s")


def chair_arms(vlm: VLM, config: EAHConfig, shape: EvalShape, folder: Path) -> AskedArms:
    """Return one round of captions for CHAIR in each way."""
    prompts = [
        _prompt(name, "Please describe this image in detail.")
        for name in write_pictures(folder, shape.pictures)
    ]
    plan = _plan(prompts, shape, folder, shape.caption, vlm)
    arms: dict[str, rounds.Arm] = {}
    for name, arm in _asked_arms(config).items():
        own = replace(plan, arms=[arm])
        arms[name] = partial(_run, vlm, own, "captions/min")
        arms |= _without_steps(name, vlm, own, "captions/min")
    return _with_released(arms, vlm, plan, shape.released[1], "captions/min")


def _without_steps(name: str, vlm: VLM, plan: Plan, unit: str) -> dict[str, rounds.Arm]:
    """Return the arm that decodes by the model itself, where the others run captured steps."""
    if vlm.device.type != "cuda":
        return {}
    return {f"{name}, no steps": partial(_run, vlm, replace(plan, compile=NEVER), unit)}


def _with_released(
    arms: dict[str, rounds.Arm], vlm: VLM, plan: Plan, count: int, unit: str
) -> AskedArms:
    """Add the released way of so many prompts, where prompts are long enough for it."""
    if vlm.prompt_length(plan.prompts[0].text) < SPAN[1]:
        return AskedArms(arms, {})
    few, all_ = plan.prompts[:count], len(plan.prompts)
    arms[RELEASED] = partial(_run_released, vlm, replace(plan, prompts=few), unit)
    note = f"from {len(few)} of {all_} {unit.split('/')[0]}"
    return AskedArms(arms, {RELEASED: note} if len(few) < all_ else {})


def _prompt(picture: str, question: str) -> Prompt:
    return Prompt(Item(f"{picture}: {question}", picture, question), question)


def _asked_arms(config: EAHConfig) -> dict[str, AskedArm]:
    """Return the arms by their name in the table."""
    return {
        "baseline": AskedArm(Arm(BASELINE), None),
        "EAH": AskedArm(Arm(EAH, eah=config), None),
    }


def _plan(prompts: Sequence[Prompt], shape: EvalShape, folder: Path, tokens: int, vlm: VLM) -> Plan:
    workers = 0 if vlm.device.type == "cpu" else GPU_WORKERS
    return Plan(
        prompts,
        [],
        folder,
        Decoding(max_new_tokens=tokens),
        batch_size=shape.batch,
        num_workers=workers,
        seed=0,
    )


def _run(vlm: VLM, plan: Plan, unit: str) -> dict[str, float]:
    """Run a plan as the commands do."""
    answered: list[Answer] = []
    recorder = Recorder(lambda _, answers: answered.extend(answers), lambda *_: None)
    done: dict[str, list[Key]] = {arm.name: [] for arm in plan.arms}
    assert plan.batch_size is not None
    batches = batches_by_count(plan.prompts, plan.batch_size)
    start = time.perf_counter()
    ask_batches(vlm, plan, batches, done, recorder, Process())
    seconds = time.perf_counter() - start
    assert len(answered) == len(plan.prompts)
    return {unit: _speed(len(answered), seconds, unit)}


@torch.inference_mode()
def _run_released(vlm: VLM, plan: Plan, unit: str) -> dict[str, float]:
    """Ask one question after the other as the release does."""
    start = time.perf_counter()
    with released_model(vlm.model):
        for prompt in plan.prompts:
            with Image.open(plan.data_path / prompt.image) as image:
                features = vlm.encode_images([image])
            vlm.answer_batch(features, [prompt.text], plan.decoding)
    return {unit: _speed(len(plan.prompts), time.perf_counter() - start, unit)}


def _speed(count: int, seconds: float, unit: str) -> float:
    return count / seconds * (60 if unit.endswith("/min") else 1)
