"""Decoding settings, prompts and answers of a model.

Axes: B batch, S prompt positions, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, ClassVar, Final, NamedTuple

import torch
from torch.nn import functional as F

import eah
from eah.errors import nearest
from eah.patch import handle_of
from models.errors import ModelError
from models.prompt_images import prompt_images

PAD: Final = 0


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen: greedily by default, by beam search, or by nucleus sampling.

    `top_p` and `temperature` are the reference wrappers' values and apply only when sampling.
    """

    max_new_tokens: int = 512
    num_beams: int = 1
    do_sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers once."""
        for name, note in (("max_new_tokens", ""), ("num_beams", " (1 is greedy)")):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise ValueError(f"{name}={value!r}, but an int is needed")
            if value < 1:
                raise ValueError(f"{name}={value}, but at least 1 is needed{note}")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}, but it must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}, but it must be above 0 and at most 1")

    @classmethod
    def of(cls, decoding: Decoding | None, settings: Mapping[str, Any]) -> Decoding:
        """Return settings that are passed as one object or by name; the defaults if neither is.

        Raises:
            ModelError: If both are passed, or a setting is unknown or invalid.
        """
        if decoding is not None:
            if not isinstance(decoding, Decoding):
                raise ModelError(
                    f"decoding={decoding!r}; pass a Decoding, or settings by name: "
                    "max_new_tokens=50"
                )
            if settings:
                raise ModelError(
                    f"a Decoding and {', '.join(settings)} were passed; pass one Decoding with "
                    "all settings, or settings alone"
                )
            return decoding
        known = [item.name for item in fields(cls)]
        for name in settings:
            if name not in known:
                raise ModelError(f"setting {name!r} is unknown: {nearest(name, known)}")
        try:
            return cls(**settings)
        except (TypeError, ValueError) as error:
            raise ModelError(str(error)) from error


class Answer(NamedTuple):
    """A stripped answer."""

    text: str
    finished: bool  # False if it was cut off at `max_new_tokens`
    tokens: int  # number of generated tokens, including EOS and stripped ones
    p_yes: float | None = None  # probability of "yes" against "no" at the first token, if asked for


class ShownPrompt(NamedTuple):
    """The prompt for one question."""

    text: str  # with special tokens spelled out
    ids: list[int]  # -200 represents all image tokens if they have no ids

    def short_ids(self) -> str:
        """Return the ids in one line with repeated ones counted, such as "1 32000x576 13"."""
        runs = [(id_, len(list(same))) for id_, same in groupby(self.ids)]
        return " ".join(f"{id_}x{count}" if count > 1 else f"{id_}" for id_, count in runs)


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """A batch of prompts as embeddings, padded on the left or after a prefix of equal length.

    `prefix` is the number of positions before the padding, 0 for padding on the left.
    """

    embeds: torch.Tensor  # (B, S, E)
    attention_mask: torch.Tensor  # (B, S), 1 where there is a token
    image_mask: torch.Tensor  # (B, S), True at image tokens
    prefix: int = 0

    returned: ClassVar[int] = 0  # `generate` returns no ids of the prompt before the new ones

    @property
    def method_image_mask(self) -> torch.Tensor:
        """The mask of image tokens for decoding methods, (B, S): `image_mask`."""
        return self.image_mask

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Arguments of `generate`."""
        return {"inputs_embeds": self.embeds, "attention_mask": self.attention_mask}

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.embeds)

    def position_ids(self) -> torch.Tensor:
        """Return each token's position in its prompt, without padding, (B, S)."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True, slots=True)
class ProcessedPrompts:
    """A batch of prompts as a processor of transformers makes them, padded on the left."""

    inputs: Mapping[str, torch.Tensor]  # of `generate`: ids (B, S), their mask, pixels and others
    method_image_mask: torch.Tensor | None = None  # (B, S), for decoding methods
    image_mask: ClassVar[None] = None  # EAH finds image tokens by their ids

    @property
    def returned(self) -> int:
        """Ids of the prompt that `generate` returns before the new ones."""
        return int(self.inputs["input_ids"].shape[1])

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.inputs["input_ids"])


Prompts = EncodedPrompts | ProcessedPrompts
Features = torch.Tensor | Sequence[Any]
"""Encoded pictures: a tensor (B, F, C), or one item per picture."""


def pad_prompts(
    rows: Sequence[torch.Tensor], images: Sequence[torch.Tensor], *, prefix: int = 0
) -> EncodedPrompts:
    """Put prompts into one batch, padded on the left or after their prefix.

    Args:
        rows: Embeddings of each prompt, shape (S, E); S may differ between prompts.
        images: True at image tokens of each prompt, shape (S,) bool.
        prefix: Number of positions at the start of every prompt, before the padding.
    """
    length = max(map(len, rows))
    embeds = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
    attention_mask = torch.zeros(len(rows), length, dtype=torch.long, device=embeds.device)
    image_mask = torch.zeros(len(rows), length, dtype=torch.bool, device=embeds.device)
    for index, (row, image) in enumerate(zip(rows, images, strict=True)):
        pad = length - len(row)
        positions = torch.arange(len(row), device=embeds.device)
        positions[prefix:] += pad
        embeds[index, positions] = row
        attention_mask[index, positions] = 1
        image_mask[index, positions] = image.to(embeds.device)
    return EncodedPrompts(embeds, attention_mask, image_mask, prefix)


def concat_prompts(branches: Sequence[Prompts]) -> Prompts:
    """Return the prompts of several branches as one batch, branch after branch."""
    encoded = [branch for branch in branches if isinstance(branch, EncodedPrompts)]
    if not encoded:  # the same prompts with noised pictures, of the same shapes
        inputs = [branch.inputs for branch in branches]
        return ProcessedPrompts({name: torch.cat([i[name] for i in inputs]) for name in inputs[0]})
    length = max(branch.embeds.shape[1] for branch in encoded)
    pads = [(length - branch.embeds.shape[1], 0) for branch in encoded]
    both = list(zip(encoded, pads, strict=True))
    return EncodedPrompts(
        torch.cat([F.pad(branch.embeds, (0, 0, *pad)) for branch, pad in both]),
        torch.cat([F.pad(branch.attention_mask, pad) for branch, pad in both]),
        torch.cat([F.pad(branch.image_mask, pad) for branch, pad in both]),
        encoded[0].prefix,
    )


@contextmanager
def image_tokens(model: Any, mask: torch.Tensor | None) -> Iterator[None]:
    """Pass the mask of image tokens, (B, S) bool, to EAH and the methods; None does nothing.

    Without a mask EAH finds the image tokens itself. Its setting `image_span` has priority.
    """
    handle = handle_of(model)
    fixed = handle is not None and handle.config.image_span is not None
    block = nullcontext() if mask is None or fixed else eah.image_tokens(model, mask)
    with block, prompt_images(mask):
        yield
