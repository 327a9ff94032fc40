"""POPE and CHAIR as the commands run them, with and without shared prefixes, and the released way.

Everything from the picture files on is measured: decoding, encoding, prefill and generation. The
released way is what the authors' release does: one prompt at a time, the picture encoded for each,
eager attention in all layers, and in one layer a Python loop over the heads' maps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from eah.settings import EAHConfig
from eval.run.batches import by_count
from eval.run.plan import Arm, Plan
from eval.run.processes import Place
from eval.run.prompt import Prompt
from eval.run.run_plan import GPU_WORKERS
from eval.run.runner import answer
from models import VLM, Decoding
from scripts import bench_rows
from scripts.bench_released_model import SPAN, released_model

OBJECTS = ("cat", "dog", "car", "tree", "person", "bottle")


@dataclass(frozen=True, slots=True)
class EvalShape:
    """How much is asked.

    Attributes:
        pictures: Pictures of a round.
        batch: Prompts that are generated together.
        answer: Tokens of an answer of POPE.
        caption: Tokens of a caption.
    """

    pictures: int = 8
    batch: int = 48
    answer: int = 10
    caption: int = 32


def write_pictures(folder: Path, count: int) -> list[str]:
    """Write noise of COCO's usual size, and return the names."""
    names = [f"{index}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        Image.effect_noise((640, 480), 50 + index).convert("RGB").save(folder / name)
    return names


def pope_arms(
    vlm: VLM, config: EAHConfig, shape: EvalShape, folder: Path
) -> dict[str, bench_rows.Arm]:
    """Return one round of POPE, six questions per picture, in each way."""
    prompts = [
        Prompt((name, thing), name, f"Is there a {thing} in the image?")
        for name in write_pictures(folder, shape.pictures)
        for thing in OBJECTS
    ]
    plan = _plan(prompts, shape, folder, shape.answer, vlm)
    arms: dict[str, bench_rows.Arm] = {}
    for name, arm in {"baseline": Arm("baseline"), "EAH": Arm("eah", config)}.items():
        own = replace(plan, arms=[arm])
        arms[name] = partial(_run, vlm, own, "questions/s")
        arms[f"{name}, no reuse"] = partial(
            _run, vlm, replace(own, prefix_reuse=False), "questions/s"
        )
    if vlm.prompt_length(prompts[0].question) >= SPAN[1]:
        arms["released way"] = partial(_run_released, vlm, plan, "questions/s")
    return arms


def chair_arms(
    vlm: VLM, config: EAHConfig, shape: EvalShape, folder: Path
) -> dict[str, bench_rows.Arm]:
    """Return one round of captions for CHAIR in each way."""
    prompts = [
        Prompt((name,), name, "Please describe this image in detail.")
        for name in write_pictures(folder, shape.pictures)
    ]
    plan = _plan(prompts, shape, folder, shape.caption, vlm)
    arms: dict[str, bench_rows.Arm] = {
        name: partial(_run, vlm, replace(plan, arms=[arm]), "captions/min")
        for name, arm in {"baseline": Arm("baseline"), "EAH": Arm("eah", config)}.items()
    }
    if vlm.prompt_length(prompts[0].question) >= SPAN[1]:
        arms["released way"] = partial(_run_released, vlm, plan, "captions/min")
    return arms


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
    rows: list[Any] = []
    assert plan.batch_size is not None
    batches = by_count(plan.prompts, plan.batch_size)
    start = time.perf_counter()
    answer(vlm, plan, batches, [], rows.extend, lambda _: None, Place())
    seconds = time.perf_counter() - start
    assert len(rows) == len(plan.prompts)
    return {unit: _speed(len(rows), seconds, unit)}


@torch.inference_mode()
def _run_released(vlm: VLM, plan: Plan, unit: str) -> dict[str, float]:
    """Ask one question after the other as the release does."""
    start = time.perf_counter()
    with released_model(vlm.model):
        for prompt in plan.prompts:
            with Image.open(plan.data_path / prompt.image) as image:
                features = vlm.encode_images([image])
            vlm.answer_batch(features, [prompt.question], plan.decoding)
    return {unit: _speed(len(plan.prompts), time.perf_counter() - start, unit)}


def _speed(count: int, seconds: float, unit: str) -> float:
    return count / seconds * (60 if unit.endswith("/min") else 1)
