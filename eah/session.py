"""What an enabled model knows while it runs: the prompt in hand, and what was found in each layer.

One `Session` is shared by the patched attention modules and by hooks on the models around them. The
hooks learn which tokens are image tokens before the layers run, and forget it afterwards, also
when the forward pass fails. A session is plain data: it is absent from `state_dict`, and
`deepcopy` of a model gives the copy a session of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from eah.config import EAHConfig
from eah.errors import EAHStateError
from eah.modeling_llama_eah import HeadChoice
from eah.prefix import SharedPrefix


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Image tokens given by the caller: a span [start, stop), or a mask of shape (B, S) bool."""

    span: tuple[int, int] | None = None
    mask: torch.Tensor | None = None

    def columns(self, batch: int, keys: int, device: torch.device) -> torch.Tensor:
        """Return the image columns of a prompt, shape (B, K) bool.

        Raises:
            EAHStateError: If the span reaches past the keys, or the mask is of another batch.
        """
        columns = torch.zeros(batch, keys, dtype=torch.bool, device=device)
        if self.span is not None:
            start, stop = self.span
            if stop > keys:
                raise EAHStateError(
                    f"image span [{start}, {stop}) reaches past the {keys} tokens of the prompt; "
                    "give the span of this prompt, or disable EAH for it"
                )
            columns[:, start:stop] = True
        elif self.mask is not None:
            if batch % self.mask.shape[0]:
                raise EAHStateError(
                    f"image mask of {self.mask.shape[0]} rows for a batch of {batch}; "
                    "give one row per prompt (beams repeat them)"
                )
            mask = self.mask.to(device).repeat_interleave(batch // self.mask.shape[0], dim=0)
            width = min(mask.shape[1], keys)
            columns[:, :width] = mask[:, :width]
        return columns


@dataclass(frozen=True, slots=True)
class Prompt:
    """One forward pass of the model.

    Attributes:
        queries: Number of query rows.
        cached: Number of tokens in the KV cache before it.
        image: Image tokens among the keys, shape (B, K) bool; None if they are not known.
        has_image: Whether any query row is an image token, or goes on from a shared prefix's image.
        valid: True at tokens, False at padding, shape (B, K) bool; None if nobody said.
    """

    queries: int
    cached: int
    image: torch.Tensor | None
    has_image: bool
    valid: torch.Tensor | None


@dataclass(slots=True)
class Session:
    """State of one enabled model.

    Attributes:
        config: Settings in force.
        image_token_id: The model's placeholder id, or None if its config names none.
        enabled: False once EAH was disabled; hooks on models further out then do nothing.
        given: Image tokens given by `eah.image_tokens`.
        prefix: First tokens of the prompts that are shared, given by `eah.prefix.sharing`.
        prompt: The forward pass under way.
        choices: What the last image prefill found, by layer.
        reached: Layers whose attention ran in the forward pass under way.
    """

    config: EAHConfig
    image_token_id: int | None
    enabled: bool = True
    given: ImageTokens | None = None
    prefix: SharedPrefix | None = None
    prompt: Prompt | None = None
    choices: dict[int, HeadChoice] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Read a forward pass from the arguments of the model's `forward`."""
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = ids if ids is not None else embeds
        if tokens is None:
            return
        cached = _cached_tokens(arguments.get("past_key_values"))
        queries = tokens.shape[1]
        image = self._image(ids, tokens, cached) if queries > 1 else None
        # One look from the host per prefill, none per layer or head; decode steps need none.
        has_image = image is not None and bool(image[:, cached:].any())
        has_image = has_image or (image is not None and self.prefix is not None)
        mask = arguments.get("attention_mask")
        valid = mask.bool() if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None
        self.reached.clear()
        self.prompt = Prompt(queries, cached, image, has_image, valid)

    def end(self, *, failed: bool) -> None:
        """Forget the forward pass.

        Raises:
            EAHStateError: If an image prefill ran without reaching every target layer.
        """
        prompt, self.prompt = self.prompt, None
        if failed or prompt is None or not prompt.has_image:
            return
        missed = sorted(set(self.config.layers) - self.reached)
        if missed:
            raise EAHStateError(
                f"the attention of layers {missed} did not run through EAH in this forward pass; "
                "disable EAH, then enable it on the model that runs these layers"
            )

    def _image(
        self, ids: torch.Tensor | None, tokens: torch.Tensor, cached: int
    ) -> torch.Tensor | None:
        """Return the image tokens among the keys, from the first source that knows them."""
        batch, keys = tokens.shape[0], cached + tokens.shape[1]
        given = self.given
        if given is None and self.config.image_span is not None:
            given = ImageTokens(span=self.config.image_span)
        if given is not None:
            return given.columns(batch, keys, tokens.device)
        if ids is None or self.image_token_id is None:
            return None
        columns = torch.zeros(batch, keys, dtype=torch.bool, device=tokens.device)
        columns[:, cached:] = ids == self.image_token_id
        return columns


class ModelHooks:
    """Hooks on a model around patched layers; the outermost model in a call begins and ends it."""

    def __init__(self, session: Session, model: nn.Module) -> None:
        """Remember whose session it is, and the names of `forward`'s positional arguments."""
        self.session = session
        self.names = tuple(inspect.signature(type(model).forward).parameters)[1:]
        self.outermost = False

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the forward pass, unless a model further out has done so."""
        # A pass that this model began and did not end was interrupted (Ctrl-C runs no hook).
        if self.session.enabled and (self.session.prompt is None or self.outermost):
            self.session.prompt = None
            self.session.begin({**dict(zip(self.names, args, strict=False)), **kwargs})
            self.outermost = self.session.prompt is not None

    def after(self, _: nn.Module, __: Any, ___: Any, output: Any) -> None:
        """End the forward pass where it began; also called after an exception, without output."""
        if self.outermost:
            self.outermost = False
            self.session.end(failed=output is None)


def _cached_tokens(past: Any) -> int:
    """Return the number of tokens in a KV cache."""
    return 0 if past is None else int(past.get_seq_length())
