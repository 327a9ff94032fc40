"""Where the prompt of `generate` ends and the answer begins.

Shared by the library and the drop-in file. Needs torch only.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch

ASSISTED: Final = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
CHUNKED: Final = "prefill_chunk_size"


class PromptEnd(NamedTuple):
    """Where the prompt of one pass ends.

    Attributes:
        length: Tokens of the prompt, cached ones included.
        has_more: Whether a later pass has the rest of it.
        is_repeat: Whether an earlier pass ran this prompt (generation without a cache).
    """

    length: int
    has_more: bool = False
    is_repeat: bool = False


class Generation:
    """A running call of `generate`.

    A model that replaces one placeholder by many image tokens makes the prompt longer than the
    input of `generate`; its first pass shows by how much. A pass without a cache is a separate
    prompt (contrastive decoding has a second one), unless the model uses no cache at all, or runs a
    draft of the answer together with the prompt.
    """

    def __init__(
        self, model: Any, shape: tuple[int, int], *, is_assisted: bool, is_chunked: bool
    ) -> None:
        """Take the model and the shape of its prompts, (prompts, tokens)."""
        self.model, (self.prompts, self.length) = model, shape
        self.is_assisted, self.is_chunked, self.begun = is_assisted, is_chunked, False
        self._covered: dict[int, bool] = {}

    def covers(self, model: Any) -> bool:
        """Return whether a model is the one that generates, or a part of it."""
        if id(model) not in self._covered:
            self._covered[id(model)] = any(part is model for part in self.model.modules())
        return self._covered[id(model)]

    def copies(self, batch: int) -> int:
        """Return how many rows of a batch in sequence are the same prompt (beams)."""
        return batch // self.prompts if self.prompts and batch % self.prompts == 0 else 1

    def end_of_prompt(self, cached: int, queries: int, *, uses_cache: bool) -> PromptEnd:
        """Return where the prompt of a pass ends."""
        keys = cached + queries
        if self.is_chunked and keys < self.length:
            return PromptEnd(self.length, has_more=True)
        if cached or self.is_assisted or (self.begun and not uses_cache):
            return PromptEnd(self.length, is_repeat=self.begun and not cached)
        return PromptEnd(keys)

    def note(self, end: PromptEnd) -> None:
        """Record the first pass."""
        if not self.begun:
            self.begun, self.length = True, max(self.length, end.length)


def generation_of(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generation | None:
    """Return the state of a call of `generate`; None if its prompts are not token tensors."""
    inputs = kwargs.get("inputs_embeds")
    for given in (kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1]):
        inputs = given if inputs is None else inputs
    if not isinstance(inputs, torch.Tensor) or inputs.dim() < 2:
        return None
    settings = (kwargs.get("generation_config"), getattr(model, "generation_config", None))

    def is_set(name: str) -> bool:
        return bool(kwargs.get(name)) or any(getattr(part, name, None) for part in settings)

    return Generation(
        model,
        (inputs.shape[0], inputs.shape[1]),
        is_assisted=any(map(is_set, ASSISTED)),
        is_chunked=is_set(CHUNKED),
    )
