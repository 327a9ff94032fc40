"""What every decoding method is: settings that are checked, and prompts in, token ids out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from models.decoding.yes_no import FirstToken, KeepFirst
from models.generation import Decoding, EncodedPrompts, Prompts

if TYPE_CHECKING:
    from models.decoding.steps.steps import DecodeSteps

MOST: Final = 1e4  # of a factor on scores; half precision counts to 6.5e4


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
        changes: What a method makes of the scores, before everything else (`applied`).
        steps: What decodes in the place of the model's own passes; None for these.
    """

    model: Any
    prompts: Prompts
    contrast: Prompts | None
    config: GenerationConfig
    processors: LogitsProcessorList
    stopping: StoppingCriteriaList
    counted: tuple[int, ...]
    first: FirstToken | None = None
    changes: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    steps: DecodeSteps | None = None

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


class DecodingMethod:
    """A way to choose tokens, or to compute their scores. Subclasses are frozen dataclasses.

    A method either changes the model's forward passes or the scores (`applied`) and leaves the
    choice to transformers' `generate`, or it chooses by itself (`generate`).

    Attributes:
        title: What papers call it.
        contrast: What it compares the model's scores with.
        scores_first_token: Whether it shows `Request.first` what it chooses the first token from.
        needs_embeddings: Whether its prompts have to be embeddings, with a mask of image tokens.
        is_tried: Whether a model has to be tried out to know that the method goes with it.
        repeats_prompts: Whether a prompt is run once for each of its beams.
    """

    title: ClassVar[str]
    contrast: ClassVar[Contrast] = Contrast.NONE
    scores_first_token: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    is_tried: ClassVar[bool] = False
    repeats_prompts: ClassVar[bool] = True

    @property
    def shares_prefix(self) -> bool:
        """Whether its prompts' prefixes may come from a cache.

        They are run as they are, `concat_prompts` with their contrast, and what precedes the
        image's end is the model's own.
        """
        return False

    @property
    def runs_alone(self) -> bool:
        """Whether prompts have to be asked one at a time, because they change each other's."""
        return self.keeps_state

    @property
    def keeps_state(self) -> bool:
        """Whether an answer depends on what the process was asked before."""
        return False

    def forget(self, model: nn.Module) -> None:
        """Forget what the process was asked before, if that is kept (`keeps_state`)."""
        return

    def check(self, decoding: Decoding) -> None:
        """Refuse beams or sampling that the method does not go with: beams, by default.

        Raises:
            MethodError: Saying what was asked for and what is possible.
        """
        if decoding.num_beams > 1:
            raise MethodError(
                f"{self.title} chooses one token after another, but {decoding.num_beams} "
                "beams were asked for; use --beam 1, with or without --sample"
            )

    def check_model(self, model: nn.Module) -> None:
        """Refuse a language model that the method does not go with: none, by default.

        Args:
            model: With EAH enabled, if the method is to run beside it.
        Raises:
            MethodError: Saying why.
        """
        return

    @contextmanager
    def applied(
        self, model: nn.Module, image: torch.Tensor | None = None
    ) -> Iterator[LogitsProcessorList]:
        """Change a model's forward passes in a `with` block; returns what changes its scores."""
        yield LogitsProcessorList()

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded behind EOS: as transformers chooses them."""
        return generate(request)


def generate(request: Request) -> torch.Tensor:
    """Return what transformers' own `generate` chooses, shape (B, T), padded behind EOS."""
    # Before the others: the repetition penalty and what sampling cuts off are not in p_yes.
    first = [] if request.first is None else [KeepFirst(request.first)]
    model = request.model
    if request.steps is not None:
        model = request.steps.standing_in(model, request.config.max_new_tokens)
    ids: torch.Tensor = model.generate(
        **request.prompts.inputs,
        generation_config=request.config,
        logits_processor=LogitsProcessorList([*request.changes, *first, *request.processors]),
        stopping_criteria=request.stopping,
    )
    return ids[:, request.prompts.returned :]


def checked(name: str, value: float, *, low: float, high: float | None = None) -> None:
    """Check a setting, which has to be a finite number.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r}, but it must be a finite number")
    if not low <= value or (high is not None and not value <= high):
        allowed = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{name}={value}, but it must be {allowed}")


def checked_layers(layers: object, words: Sequence[str] = (), name: str = "layers") -> None:
    """Check a setting that is a tuple of whole numbers from 0, or one of some words.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    if isinstance(layers, str) and layers in words:
        return
    found = layers if isinstance(layers, tuple) else (None,)
    if any(type(one) is not int or one < 0 for one in found) or len(set(found)) < len(found):
        allowed = " or ".join([*(repr(word) for word in words), "numbers from 0, each once"])
        raise ValueError(f"{name}={layers!r:.60}, but they are {allowed}")


def checked_switch(name: str, value: object) -> None:
    """Check a setting that is True or False.

    Raises:
        ValueError: Naming the setting and its value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r:.60}, but it is True or False")
