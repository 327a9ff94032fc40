"""Load a checkpoint's processor, and make a model's inputs of pictures and questions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from PIL import Image
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin

from tests.models.hf.checkpoint import Checkpoint

Inputs = dict[str, Any]
IMAGES_ONLY = ["image_processor", "tokenizer"]


class Loaded(NamedTuple):
    """A checkpoint, and what transformers makes of its folder."""

    checkpoint: Checkpoint
    folder: Path
    model: PreTrainedModel
    processor: ProcessorMixin


def missing(packages: Sequence[str]) -> tuple[str, ...]:
    """Return which packages are not installed."""
    return tuple(package for package in packages if find_spec(package) is None)


def load_processor(checkpoint: Checkpoint, folder: Path) -> ProcessorMixin:
    """Return the folder's processor, without its video part where torchvision is missing.

    AutoProcessor loads all parts, and transformers' video processors need torchvision. Leaving one
    out works for processors that take it after the image processor and the tokenizer.
    """
    if not missing(checkpoint.needs) or missing(checkpoint.images_need):
        return AutoProcessor.from_pretrained(folder)
    whole = getattr(transformers, checkpoint.processor["processor_class"])
    body = {"attributes": IMAGES_ONLY, "get_attributes": classmethod(lambda cls: IMAGES_ONLY)}
    return type(whole.__name__, (whole,), body).from_pretrained(folder)


def encode(
    processor: ProcessorMixin,
    checkpoint: Checkpoint,
    questions: Sequence[str],
    pictures: Sequence[Sequence[Image.Image]],
) -> Inputs:
    """Return the inputs of a padded batch: a question and its pictures each."""
    if checkpoint.template is None:
        text = [
            checkpoint.prefix * len(seen) + question
            for question, seen in zip(questions, pictures, strict=True)
        ]
        nested = [list(seen) for seen in pictures]
        inputs = processor(images=nested, text=text, padding=True, return_tensors="pt")
        inputs.pop("labels", None)
        return dict(inputs)
    conversations = [
        _message([{"type": "image", "image": picture} for picture in seen], question)
        for question, seen in zip(questions, pictures, strict=True)
    ]
    return _apply(processor, conversations)


def encode_video(processor: ProcessorMixin, question: str, frames: torch.Tensor) -> Inputs:
    """Return the inputs of a question about one video, frames as (T, C, H, W) uint8."""
    conversation = _message([{"type": "video", "video": frames}], question)
    return _apply(processor, [conversation], do_sample_frames=False)


def _message(media: list[dict[str, Any]], question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]


def _apply(
    processor: ProcessorMixin, conversations: list[list[dict[str, Any]]], **settings: Any
) -> Inputs:
    called: dict[str, Any] = {"padding": True, **settings}
    is_nested = "processor_kwargs" in signature(processor.apply_chat_template).parameters
    inputs = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **({"processor_kwargs": called} if is_nested else called),
    )
    return dict(inputs)
