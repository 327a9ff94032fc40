"""A decode step of a whole model: plain, on fixed buffers, captured, and compiled.

`costs.py` runs it on models of `vlm.py`, with transformers' `generate` as in the evaluations.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from transformers import GenerationConfig

import eah
from models.base import VLM
from models.decoding.steps.steps import LONG, DecodeSteps
from models.generation import EncodedPrompts
from scripts.bench.model import random_prompts, work_time
from scripts.bench.rounds import Arm

FEW: Final = LONG  # the shortest answers that use steps from the first batch on


def decoding_arms(vlm: VLM, *, batch: int, tokens: int) -> dict[str, Arm]:
    """Return one round of decoding in each way, on the same prompts.

    Args:
        vlm: The model.
        batch: Prompts.
        tokens: Tokens to decode beyond a short answer, whose time is subtracted.
    """
    model, prompts = vlm.language_model, random_prompts(vlm, batch)
    ways: dict[str, DecodeSteps | None] = {"the model itself": None}
    if vlm.device.type == "cuda":
        ways["captured"] = DecodeSteps(model, is_required=True)
        ways["compiled and captured"] = DecodeSteps(model, compiles=True, is_required=True)
    else:
        ways["fixed buffers"] = DecodeSteps(model, captures=False, is_required=True)
    return {name: partial(_round, vlm, prompts, steps, tokens) for name, steps in ways.items()}


def _round(
    vlm: VLM, prompts: EncodedPrompts, steps: DecodeSteps | None, tokens: int
) -> dict[str, float]:
    short = _seconds(vlm, prompts, steps, FEW)
    return {
        "decode step, ms": 1000 * (_seconds(vlm, prompts, steps, FEW + tokens) - short) / tokens
    }


@torch.inference_mode()
def _seconds(vlm: VLM, prompts: EncodedPrompts, steps: DecodeSteps | None, tokens: int) -> float:
    model = vlm.language_model
    chosen = model if steps is None else steps.make_stand_in(model, tokens)
    config = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, eos_token_id=vlm.eos_ids[0], pad_token_id=0
    )
    start = work_time(vlm.device)
    with eah.image_tokens(model, prompts.image_mask):
        chosen.generate(**prompts.inputs, generation_config=config)
    return work_time(vlm.device) - start
