"""The current forward pass: its prompt, read from the arguments of the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch

from eah.cached_images import CachedImages, cache_of
from eah.detection import EmbeddingRows, image_rows
from eah.drop_in.callers import _image_tokens, _open_blocks, _prompt_length
from eah.drop_in.messages import TALLY, Findings
from eah.errors import EAHStateError
from eah.method import Choice
from eah.prompt import (
    NO_IMAGE,
    ImageColumns,
    Prompt,
    cached_tokens,
    check_unpadded,
    columns_of_mask,
    columns_of_span,
    read_prompt,
    repeat_rows,
    token_mask,
)
from eah.prompt_end import Generation
from eah.settings import DropInSettings

# Arguments. The first is in MiniGPT-4's and LAVIS' modeling files, which put it before the rest.
EMBEDS: Final = ("query_embeds", "inputs_embeds")


@dataclass(eq=False)
class Pass:
    """The current forward pass.

    Attributes:
        state: The patched model.
        prompt: Its prompt.
        short: Prompts that are too short for a fixed span, shape (B,) bool; None without one.
        copies: Rows in sequence that are the same prompt (beams).
        is_repeat: Whether an earlier pass ran this prompt.
        found: The choice of each target layer that has run.
    """

    state: PatchedModel
    prompt: Prompt
    short: torch.Tensor | None = None
    copies: int = 1
    is_repeat: bool = False
    found: dict[int, Choice] = field(default_factory=dict)


class Inputs(NamedTuple):
    """Input of a model: token ids or embeddings, (B, Q) or (B, Q, W).

    Attributes:
        ids: Token ids; None if there are only embeddings.
        embeds: Embeddings, before the ids; None if there are only ids.
    """

    ids: torch.Tensor | None
    embeds: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Batch rows and query rows."""
        parts = [part for part in self if part is not None]
        return parts[0].shape[0], sum(part.shape[1] for part in parts)

    @property
    def device(self) -> torch.device:
        """Their device."""
        return next(part.device for part in self if part is not None)


_current: ContextVar[Any] = ContextVar("eah_prompt", default=None)


@dataclass
class PatchedModel:
    """State that a patched model shares with its target attention modules.

    Attributes:
        settings: Its settings.
        layers: The target layers that the model has.
        rows: Finds which embeddings are rows of the model's table.
        cached_images: Image tokens in caches.
        is_trained: Whether the last forward pass was a training pass, so a backward pass may call
            its layers again.
    """

    settings: DropInSettings
    layers: tuple[int, ...]
    rows: EmbeddingRows = field(default_factory=EmbeddingRows)
    cached_images: CachedImages = field(default_factory=CachedImages)
    is_trained: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep only the settings."""
        return PatchedModel, (self.settings, self.layers)

    def begin(self, model: Any, arguments: Mapping[str, Any]) -> Pass | None:
        """Read a forward pass of a model from its arguments; None without a prompt.

        Raises:
            EAHStateError: If the image tokens can't be located, or are split over passes.
        """
        given = [arguments[name] for name in EMBEDS if arguments.get(name) is not None]
        embeds = torch.cat(given, dim=1) if len(given) > 1 else next(iter(given), None)
        inputs = Inputs(arguments.get("input_ids"), embeds)
        if inputs.ids is None and inputs.embeds is None:
            return None
        (batch, queries), past = inputs.shape, arguments.get("past_key_values")
        cached, length = cached_tokens(past), _prompt_length.get()
        keys = cached + queries
        end, generation = None, length if isinstance(length, Generation) else None
        if generation is not None:
            length = None
            if generation.covers(model):
                uses_cache = arguments.get("use_cache") is not False
                end = generation.end_of_prompt(cached, queries, uses_cache=uses_cache)
                length = torch.full((1, 1), end.length)
        if (cached and queries == 1) or (length is not None and cached >= int(length.max())):
            return Pass(self, Prompt(queries, cached, is_decoding=True))
        answer = None
        if length is not None and int(length.min()) < keys:
            answer = repeat_rows(length, batch, "prompt length")
        valid = token_mask(arguments.get("attention_mask"), cached, queries)
        columns, short = self._columns(model, inputs, past, cached, valid)
        self.cached_images.keep(past, columns.here)
        prompt = read_prompt(
            columns,
            queries=queries,
            cached=cached,
            valid=None if valid is None else valid.to(inputs.device),
            answer=answer,
            has_more=end is not None and end.has_more,
        )
        active_pass = Pass(self, prompt, short)
        if generation is not None and end is not None:
            active_pass.copies, active_pass.is_repeat = generation.copies(batch), end.is_repeat
            generation.note(end)
        return active_pass

    def end(self, active_pass: Pass, output: Any) -> None:
        """Count a pass, and store which tokens of a new cache are image tokens."""
        prompt, past = active_pass.prompt, cache_of(output)
        if prompt.image is None:
            return
        if self.cached_images.get(past) is None:
            self.cached_images.keep(past, prompt.image)
        if active_pass.is_repeat or (prompt.skipped is None and not active_pass.found):
            return  # counted before, or all target layers are in training mode
        if prompt.skipped is None or active_pass.short is not None:
            TALLY.add(
                Findings(
                    self.settings,
                    prompt.image,
                    prompt.valid,
                    active_pass.short,
                    active_pass.found,
                    active_pass.copies,
                )
            )
        elif prompt.skipped == NO_IMAGE and not prompt.cached:
            TALLY.skip("without", len(prompt.image) // active_pass.copies)

    def _columns(
        self, model: Any, inputs: Inputs, past: Any, cached: int, valid: torch.Tensor | None
    ) -> tuple[ImageColumns, torch.Tensor | None]:
        """Return the image tokens among the keys, and which prompts are too short for the span."""
        (batch, queries), device = inputs.shape, inputs.device
        given = _image_tokens.get()
        if given is None and _open_blocks:
            raise EAHStateError(
                "`image_tokens` is active in another thread, but this thread has no such block; "
                "enter the block in the thread that calls the model (it applies to one thread only)"
            )
        if self.settings.config.rule == "released_code":
            check_unpadded(valid)
        if isinstance(given, torch.Tensor):
            return columns_of_mask(given, batch, cached + queries, device), None
        span = given or self.settings.config.image_span
        if span is None:
            here = self._detect(model, inputs, cached, valid)
            return ImageColumns(self.cached_images.columns(past, cached, here)), None
        columns, length = columns_of_span(span, batch, cached + queries, valid, device)
        fits = length >= span[1]
        if not bool(fits.all()):
            TALLY.warn(
                "short",
                f"a prompt of {int(length.min())} tokens is too short for the image tokens "
                f"{span[0]}:{span[1]}, so it runs without EAH; "
                + (
                    "the preset released-code has fixed columns"
                    if self.settings.config.rule == "released_code"
                    else "set EAH_IMAGE_SPAN=auto, or give their positions with image_tokens()"
                ),
            )
        return ImageColumns(columns & fits[:, None]), ~fits

    def _detect(
        self, model: Any, inputs: Inputs, cached: int, valid: torch.Tensor | None
    ) -> torch.Tensor:
        """Return which tokens of a pass are in no row of the embedding table, (B, Q) bool."""
        none = torch.zeros(inputs.shape, dtype=torch.bool, device=inputs.device)
        if inputs.embeds is None:
            return none
        known = self.rows.known(model.get_input_embeddings(), inputs.embeds)
        if known is None:
            raise EAHStateError(
                f"the image tokens of embeddings of width {inputs.embeds.shape[-1]} are not known: "
                f"{type(model).__name__} has no embedding table with exact copies to compare them "
                "with; set EAH_IMAGE_SPAN or use image_tokens() to give their positions, or set "
                "EAH_DISABLE=1"
            )
        width = inputs.embeds.shape[1]
        if valid is not None:
            valid = valid[:, cached : cached + width]
        image, has_text = image_rows(known, inputs.embeds, valid)
        has_text = has_text | (cached > 0) | (inputs.ids is not None)
        if not bool((has_text | ~image.any(-1)).all()):
            TALLY.warn(
                "noise",
                "no embedding of a prompt is in the model's embedding table (noise on all of "
                "them?), so its image tokens are not known and it runs without EAH; give their "
                "positions with EAH_IMAGE_SPAN or image_tokens()",
            )
        none[:, :width] = image & has_text[:, None]
        return none
