"""What every decoding method is: settings that are checked, and prompts in, token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from models.decoding.yes_no import FirstToken
from models.generation import Decoding, EncodedPrompts, Prompts


class MethodError(ValueError):
    """A method that does not go with the model, the decoding, or what else is enabled."""


class Contrast(Enum):
    """What a method compares the model's scores with."""

    NONE = "nothing"
    NOISED_IMAGE = "the same prompt about a noised picture"
    TEXT = "the prompt without its image"


@dataclass(frozen=True, slots=True)
class Request:
    """What a method is given.

    Attributes:
        model: The language model.
        prompts: Left-padded prompts.
        contrast: The prompts to compare with, one for each; None if the method needs none.
        config: Length, EOS, beams and sampling.
        processors: Of the next token's scores.
        stopping: What ends an answer besides EOS and length.
        counted: Tokens of each prompt that the reference wrapper hands to `generate` as ids, and
            that transformers 4.29.2 counts in the length of an answer.
        first: Is shown the method's scores of the first token, before processors; None for nothing.
    """

    model: Any
    prompts: Prompts
    contrast: Prompts | None
    config: GenerationConfig
    processors: LogitsProcessorList
    stopping: StoppingCriteriaList
    counted: tuple[int, ...]
    first: FirstToken | None = None

    def single_eos(self) -> int:
        """Return the id that ends an answer, for methods that know of one only.

        Raises:
            MethodError: If there are several.
        """
        ids = self.config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        if len(ids) != 1:
            raise MethodError(
                f"{len(ids)} tokens end an answer of {type(self.model).__name__} ({ids}), but this "
                "method knows of one only; use another method"
            )
        return int(ids[0])

    def embedded(self) -> EncodedPrompts:
        """Return the prompts where they are embeddings, which some methods need.

        Raises:
            MethodError: If the model is not given embeddings.
        """
        if not isinstance(self.prompts, EncodedPrompts):
            raise MethodError(
                f"{type(self.model).__name__} is not given its prompts as embeddings, which this "
                "method needs; use another method"
            )
        return self.prompts


class DecodingMethod(ABC):
    """A way to choose tokens. Subclasses are frozen dataclasses of its settings.

    Attributes:
        contrast: What it compares the model's scores with.
        shares_prefix: Whether its prompts' prefixes may come from a cache: they are run as they
            are, `concat_prompts` with their contrast, and attention is the model's own.
        scores_first_token: Whether it shows `Request.first` what it chooses the first token from.
    """

    contrast: ClassVar[Contrast] = Contrast.NONE
    shares_prefix: ClassVar[bool] = False
    scores_first_token: ClassVar[bool] = False

    def check(self, decoding: Decoding) -> None:
        """Refuse beams or sampling that the method does not go with: beams, by default.

        Raises:
            MethodError: Saying what was asked for and what is possible.
        """
        if decoding.num_beams > 1:
            raise MethodError(
                f"{type(self).__name__} chooses one token after another, but {decoding.num_beams} "
                "beams were asked for; use --beam 1, with or without --sample"
            )

    @abstractmethod
    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded with 0 behind EOS."""


def checked(name: str, value: float, *, low: float, high: float | None = None) -> None:
    """Check a setting.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    if not low <= value or (high is not None and not value <= high):
        allowed = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{name}={value}, but it must be {allowed}")
