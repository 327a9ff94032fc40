"""What a family is: a tiny model with random weights, and prompts with pictures for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)

Settings = dict[str, Any]
Tensors = dict[str, Any]

IMAGE, VIDEO, START, END, EXTRA = 90, 91, 92, 93, 94
TEXT: Mapping[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
VISION: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
PROMPTS = ("one image", "two images", "left-padded batch", "video")
ENCODER, CROSS, SPARSE, BIAS, KERNEL = REASONS = (
    "encoder-decoder",
    "cross-attention",
    "sparse attention",
    "position bias",
    "attention without AttentionInterface",
)
WEIGHTS = 0.15  # standard deviation


@dataclass(frozen=True)
class Media:
    """A picture or a video as a family's prompts hold it.

    Attributes:
        ids: Token ids of one picture in a prompt, wrappers around the placeholders included.
        tensors: Returns pixel values and what goes with them, for a number of batch rows and of
            pictures per row.
        token: The placeholder among `ids`; the others are text.
    """

    ids: tuple[int, ...]
    tensors: Callable[[int, int], Tensors]
    token: int = IMAGE


@dataclass(frozen=True)
class Family:
    """One vision-language family of transformers.

    Attributes:
        name: Its `model_type`, and what is special about the case.
        build: Returns the model for an attention kernel.
        image: Its pictures; None if no prompt is made because the family is refused.
        video: Its videos; None without.
        more: Returns further inputs, from input_ids and attention_mask.
        layers: Decoder layers with softmax attention.
        refused: Why `eah.enable` refuses it, one of REASONS; None if the family works.
        source: Where the image tokens of a prompt come from.
        note: What is special about the layers.
        sdpa_as: The family whose eager attention sees what this one's sdpa attention sees, where
            transformers gives the two kernels different masks.
        eager_tower: Whether the vision tower computes the same with both kernels.
        atol: How far logits may be from the oracle's. Larger where the sdpa and the eager kernel
            of the plain model differ by more than torch's default already.
    """

    name: str
    build: Callable[[str], PreTrainedModel]
    image: Media | None = None
    video: Media | None = None
    more: Callable[[torch.Tensor, torch.Tensor], Tensors] = field(default=lambda ids, mask: {})
    layers: tuple[int, ...] = (0, 1, 2)
    refused: str | None = None
    source: str = "image_token_id"
    note: str = ""
    sdpa_as: str | None = None
    eager_tower: bool = True
    atol: float = 1e-5

    @property
    def prompts(self) -> tuple[str, ...]:
        if self.image is None:
            return ()
        return PROMPTS if self.video else PROMPTS[:-1]

    @property
    def layer(self) -> int:
        """The layer that the tests share a head in."""
        return self.layers[min(1, len(self.layers) - 1)]

    def inputs(self, prompt: str) -> Tensors:
        """Return the arguments of the model's forward for one of PROMPTS."""
        generator = torch.Generator().manual_seed(PROMPTS.index(prompt))
        media = self.video if prompt == "video" else self.image
        assert media is not None

        def text(length: int) -> list[int]:
            return torch.randint(3, 80, (length,), generator=generator).tolist()

        picture = list(media.ids)
        rows = [text(4) + picture + text(6)]
        if prompt == "two images":
            rows = [text(3) + picture + text(4) + picture + text(5)]
        elif prompt == "left-padded batch":
            short, long = text(2) + picture + text(4), text(5) + picture + text(6)
            rows = [[0] * (len(long) - len(short)) + short, long]
        ids = torch.tensor(rows)
        inputs: Tensors = {"input_ids": ids}
        mask = torch.ones_like(ids)
        if prompt == "left-padded batch":
            mask[0, : len(long) - len(short)] = 0
            inputs["attention_mask"] = mask
        torch.manual_seed(1)
        pictures = media.tensors(len(rows), 2 if prompt == "two images" else 1)
        return {**inputs, **pictures, **self.more(ids, mask)}

    def image_columns(self, inputs: Tensors) -> torch.Tensor:
        """Return the image tokens among the prompt's tokens, shape (B, S) bool."""
        tokens = [media.token for media in (self.image, self.video) if media is not None]
        return torch.isin(inputs["input_ids"], torch.tensor(tokens))


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a tiny model of a family is built: call it with an attention kernel.

    Attributes:
        model_type: The family's name in transformers' tables.
        text: Settings of the language model beside TEXT; None if it has no config of its own.
        vision: Settings of the vision tower beside VISION; None likewise.
        model: Name of the model class, where the table of image-text models has none.
        settings: Settings of the whole model.
    """

    model_type: str
    text: Mapping[str, Any] | None
    vision: Mapping[str, Any] | None
    model: str | None
    settings: Mapping[str, Any]

    def __call__(self, kernel: str) -> PreTrainedModel:
        return random_model(self.config(), kernel, self.model)

    def config(
        self,
        *,
        text: Mapping[str, Any] = MappingProxyType({}),
        vision: Mapping[str, Any] = MappingProxyType({}),
        **settings: Any,
    ) -> PretrainedConfig:
        """Return the tiny config, with some settings replaced."""
        parts = {}
        if self.text is not None:
            parts["text_config"] = {**TEXT, **self.text, **text}
        if self.vision is not None:
            parts["vision_config"] = {**VISION, **self.vision, **vision}
        return AutoConfig.for_model(self.model_type, **{**self.settings, **parts, **settings})


def tiny(
    model_type: str,
    *,
    text: Mapping[str, Any] | None = MappingProxyType({}),
    vision: Mapping[str, Any] | None = MappingProxyType({}),
    model: str | None = None,
    **settings: Any,
) -> Recipe:
    """Return the recipe of a family's tiny model; see Recipe."""
    return Recipe(model_type, text, vision, model, settings)


def random_model(
    config: PretrainedConfig, kernel: str, model: str | None = None, std: float = WEIGHTS
) -> PreTrainedModel:
    """Return a model with random weights, the same ones for every kernel."""
    if model is None:
        model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    else:
        model_class = getattr(transformers, model)
    torch.manual_seed(2)  # vectors keep the values that transformers gives them
    # A tower may lack sdpa where the decoder has it: sdpa is what transformers chooses by itself.
    chosen = None if kernel == "sdpa" else kernel
    built = model_class._from_config(config, attn_implementation=chosen, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, std, generator=generator)
            elif not weight.isfinite().all():
                weight.zero_()
    return built.eval()


def placeholders(count: int) -> tuple[int, ...]:
    """Return a picture's placeholders."""
    return (IMAGE,) * count
