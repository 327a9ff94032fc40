"""Whole vision-language models with random weights, at the papers' sizes or reduced for a CPU.

Nothing is downloaded, and speed and memory do not depend on the values. The densest head does: with
random weights heads tie, in trained models they do not. So one head of each target layer is made
flat, which gives it a sink in most columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

import models
from eah.find import attention_modules
from eah.settings import EAHConfig
from models.base import VLM
from models.blip import InstructBlip
from scripts.check.shapes import true_config

MODELS: Final = ("llava-1.5", "instructblip", "minigpt4", "shikra")
FLAT: Final = 0.05
SHIKRAS: Final = 3


def reduced_config(*, tiny: bool = False) -> Any:
    """Return LLaVA-1.5's config at 8 layers and width 1024, with its 576 image tokens.

    Args:
        tiny: Whether to return toy sizes instead, with 16 image tokens.
    """
    width, layers, side = (64, 2, 56) if tiny else (1024, 8, 336)
    vision = CLIPVisionConfig(
        hidden_size=width // 4,
        intermediate_size=width,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=width // 64 if not tiny else 4,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict())


def make_vlm(name: str, device: torch.device, config: Any = None) -> VLM:
    """Build a model with random weights on a device, in bfloat16 on a GPU, else in float32.

    Args:
        name: Name of a model in `configs/`.
        device: Where it runs.
        config: Its transformers config; at the true size if None.
    """
    wrapper = models.wrapper_of(models.model_settings(name))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            model = wrapper.model_class(config or true_config(name))
    finally:
        torch.set_default_dtype(before)
    for layer in eah_config(name).layers:
        _flatten_head(attention_modules(model)[layer])
    extras: dict[str, Any] = {}
    if wrapper is InstructBlip:
        words_of = QuestionTokenizer(model.config.qformer_config.vocab_size)
        extras["instruction_tokenizer"] = words_of
    words = WordTokenizer(model.config.get_text_config(decoder=True).vocab_size)
    return wrapper(model, words, protocol="opera", **extras)


def eah_config(name: str) -> EAHConfig:
    """Return EAH's settings of a model."""
    values = dict(models.model_settings(name).eah)
    return EAHConfig.preset(values.pop("preset"), **values)


@torch.no_grad()
def _flatten_head(attention: Any) -> None:
    """Make the second head attend to all keys nearly alike."""
    size = attention.head_dim
    attention.q_proj.weight[size : 2 * size] *= FLAT


class WordTokenizer:
    """Words and signs as tokens: about as many as LLaMA's tokenizer has for English questions."""

    def __init__(self, vocabulary: int) -> None:
        """Set the size of the vocabulary, without the tokens that Shikra adds."""
        self._pieces = vocabulary - SHIKRAS

    def encode(self, text: str, /) -> list[int]:
        """Return an id for each word and sign."""
        return [_id_of(word, self._pieces) for word in re.findall(r"\w+|[^\w\s]", text)]

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the ids as text."""
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        """Return LLaMA's id."""
        return 1

    def eos_id(self) -> int:
        """Return LLaMA's id."""
        return 2

    def get_piece_size(self) -> int:
        """Return the size of the vocabulary without Shikra's tokens."""
        return self._pieces

    def id_to_piece(self, id_: int, /) -> str:
        """Return the id as text."""
        return str(id_)


class QuestionTokenizer:
    """Words as tokens, for InstructBLIP's Q-Former."""

    def __init__(self, pieces: int) -> None:
        """Set the size of the vocabulary."""
        self._pieces = pieces

    def __call__(self, questions: Sequence[str], **_: Any) -> dict[str, torch.Tensor]:
        """Return ids and mask, each (B, T), as the Q-Former's own tokenizer does."""
        rows = [torch.tensor([_id_of(word, self._pieces) for word in q.split()]) for q in questions]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    def get_vocab(self) -> dict[str, int]:
        """Return ids by token."""
        return {str(number): number for number in range(self._pieces)}


def _id_of(word: str, pieces: int) -> int:
    """Return the same id for a word in every process."""
    return 3 + int.from_bytes(word.encode()[:6], "big") % (pieces - 3)
