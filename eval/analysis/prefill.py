"""Run a model's prefill without an answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

import torch

import eah
from models.base import VLM
from models.generation import Decoding, Features, Prompts, image_tokens

ONE_TOKEN: Final = Decoding(max_new_tokens=1)


@torch.inference_mode()
def prefill(
    vlm: VLM, features: Features, questions: Sequence[str], span: tuple[int, int] | None
) -> None:
    """Run the forward pass that comes before a model's first token, as it is run for an answer.

    Args:
        vlm: The model.
        features: What `VLM.encode` returned, one picture per question.
        questions: One per picture.
        span: Image tokens of every prompt that EAH's settings fix; None for those of the prompts.
    Raises:
        EAHError: If the span reaches past a prompt.
    """
    prompts = vlm.encode_prompts(features, questions)
    with _image_tokens(vlm, prompts, span), vlm.autocast():
        vlm.language_model.generate(
            **prompts.inputs, generation_config=vlm.generation_config(ONE_TOKEN)
        )


def _image_tokens(
    vlm: VLM, prompts: Prompts, span: tuple[int, int] | None
) -> AbstractContextManager[None]:
    if span is None:
        return image_tokens(vlm.model, prompts.image_mask)
    return eah.image_tokens(vlm.model, span)
