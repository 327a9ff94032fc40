"""The base class of decoding methods: checked settings, prompts in, token ids out."""

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

MAX_FACTOR: Final = 1e4  # on scores; the largest number in half precision is 6.5e4


class MethodError(ValueError):
    """A method that does not fit the model, the decoding, or another enabled method."""


class Contrast(Enum):
    """What a method contrasts the model's scores with."""

    NONE = "nothing"
    NOISED_IMAGE = "the same prompt about a noised picture"
    TEXT = "the prompt without its image"


@dataclass(frozen=True, slots=True)
class Request:
    """The input of a decoding method.

    Attributes:
        model: The language model.
        prompts: Left-padded prompts.
        contrast: One contrast prompt per prompt; None if the method needs none.
        config: Length, EOS, beams and sampling.
        processors: Logits processors.
        stopping: Stopping criteria besides EOS and length.
        counted: Tokens of each prompt that the reference wrapper passes to `generate` as ids, and
            that transformers 4.29.2 counts in the length of an answer.
        first: Records the method's scores of the first token, before processors; None to skip it.
        changes: The method's own processors, which run first (`applied`).
        steps: Fast decode steps; None for the model's own forward passes.
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
        """Return the id that ends an answer, for methods that support only one.

        Raises:
            MethodError: If there are several.
        """
        ids = self.config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        if len(ids) != 1:
            raise MethodError(
                f"{len(ids)} tokens end an answer of {type(self.model).__name__} ({ids}), but this "
                "method supports only one; use another method"
            )
        return int(ids[0])

    def require_embeddings(self) -> EncodedPrompts:
        """Return the prompts as embeddings, which some methods need.

        Raises:
            MethodError: If the prompts are not embeddings.
        """
        if not isinstance(self.prompts, EncodedPrompts):
            raise MethodError(
                f"{type(self.model).__name__} does not take its prompts as embeddings, which this "
                "method needs; use another method"
            )
        return self.prompts


class DecodingMethod:
    """A method that chooses tokens or changes scores. Subclasses are frozen dataclasses.

    A method either changes the model's forward passes or the scores (`applied`) and uses
    transformers' `generate`, or it chooses tokens itself (`generate`).

    Attributes:
        title: Name in papers.
        contrast: What it contrasts the model's scores with.
        scores_first_token: Whether it records the first token's scores in `Request.first`.
        needs_embeddings: Whether its prompts must be embeddings, with a mask of image tokens.
        needs_trial: Whether only a trial run shows whether a model supports the method.
        repeats_prompts: Whether a prompt is run once per beam.
    """

    title: ClassVar[str]
    contrast: ClassVar[Contrast] = Contrast.NONE
    scores_first_token: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    needs_trial: ClassVar[bool] = False
    repeats_prompts: ClassVar[bool] = True

    @property
    def can_use_cached_prefix(self) -> bool:
        """Whether its prompts' prefixes may come from a cache.

        The method must run the prompts unchanged (`concat_prompts` joins them with their contrast)
        and must not change rows before the image's end.
        """
        return False

    @property
    def runs_alone(self) -> bool:
        """Whether the batch size must be 1, because prompts affect each other's answers."""
        return self.depends_on_history

    @property
    def depends_on_history(self) -> bool:
        """Whether an answer depends on earlier prompts of the same process."""
        return False

    def forget(self, model: nn.Module) -> None:
        """Forget earlier prompts, if the method depends on them (`depends_on_history`)."""
        return

    def check(self, decoding: Decoding) -> None:
        """Refuse beams or sampling that the method does not support: beams by default.

        Raises:
            MethodError: Naming what was requested and what is possible.
        """
        if decoding.num_beams > 1:
            raise MethodError(
                f"{self.title} chooses one token after another, but {decoding.num_beams} "
                "beams were requested; use --beam 1, with or without --sample"
            )

    def check_model(self, model: nn.Module) -> None:
        """Refuse a language model that the method does not support: none by default.

        Args:
            model: With EAH enabled, if both are used.
        Raises:
            MethodError: With the reason.
        """
        return

    @contextmanager
    def applied(
        self, model: nn.Module, image: torch.Tensor | None = None
    ) -> Iterator[LogitsProcessorList]:
        """Change a model's forward passes in a `with` block; yield logits processors."""
        yield LogitsProcessorList()

    def generate(self, request: Request) -> torch.Tensor:
        """Return new token ids, shape (B, T), padded after EOS; by default from transformers."""
        return generate(request)


def generate(request: Request) -> torch.Tensor:
    """Return the new token ids of transformers' `generate`, shape (B, T), padded after EOS."""
    # Before the other processors: p_yes must not include the repetition penalty or top-p cut-offs.
    first = [] if request.first is None else [KeepFirst(request.first)]
    model = request.model
    if request.steps is not None:
        model = request.steps.make_stand_in(model, request.config.max_new_tokens)
    ids: torch.Tensor = model.generate(
        **request.prompts.inputs,
        generation_config=request.config,
        logits_processor=LogitsProcessorList([*request.changes, *first, *request.processors]),
        stopping_criteria=request.stopping,
    )
    return ids[:, request.prompts.returned :]


def check_number(name: str, value: float, *, low: float, high: float | None = None) -> None:
    """Check a setting that must be a finite number.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r}, but it must be a finite number")
    if not low <= value or (high is not None and not value <= high):
        allowed = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{name}={value}, but it must be {allowed}")


def check_layer_setting(layers: object, words: Sequence[str] = (), name: str = "layers") -> None:
    """Check a setting that is a tuple of whole numbers from 0, or one of the allowed words.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    if isinstance(layers, str) and layers in words:
        return
    found = layers if isinstance(layers, tuple) else (None,)
    if any(type(one) is not int or one < 0 for one in found) or len(set(found)) < len(found):
        allowed = " or ".join([*(repr(word) for word in words), "distinct numbers from 0"])
        raise ValueError(f"{name}={layers!r:.60}, but it must be {allowed}")


def check_switch(name: str, value: object) -> None:
    """Check a setting that is True or False.

    Raises:
        ValueError: Naming the setting and its value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r:.60}, but it must be True or False")
