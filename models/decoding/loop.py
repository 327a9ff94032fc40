"""Greedy decoding and sampling from the scores of several prompts.

Every step is one forward pass: the prompts of all branches are rows of one batch, a method combines
their scores, and all branches continue with the chosen token. transformers' own `generate` runs the
model and manages positions, caches and inputs; a logits processor chooses the token and excludes
all others.

Axes: B prompts, G branches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.decoding.attention_replacement import in_this_thread
from models.decoding.base import Request
from models.generation import Prompts, image_tokens

Combine = Callable[[Sequence[Any], torch.Tensor], torch.Tensor]
"""Maps the logits of the last tokens, (G * B, V), to scores (B, V).

The first argument contains the output of the model's last forward pass; it is empty if the model's
`generate` runs an inner model (BLIP-2).
"""


@torch.inference_mode()
def decode(
    request: Request, prompts: Prompts, combine: Combine, *, hidden_states: bool = False
) -> torch.Tensor:
    """Generate token by token.

    Args:
        request: Model, settings and stopping criteria.
        prompts: The prompts of all branches, concatenated: G * B of them.
        combine: Computes the scores of the next token.
        hidden_states: Whether the model's output includes them.
    Returns:
        New ids, shape (B, T), padded after EOS.
    """
    model, config = request.model, request.config
    with image_tokens(model, prompts.image_mask), _outputs_of(model) as outputs:
        choice = _Choice(request, prompts, lambda logits: combine(outputs, logits))
        ids: torch.Tensor = model.generate(
            **prompts.inputs,
            generation_config=GenerationConfig(
                max_new_tokens=config.max_new_tokens,
                do_sample=False,
                use_cache=True,
                bos_token_id=config.bos_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
                output_hidden_states=hidden_states,
            ),
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=request.stopping,
        )
    return ids[: len(request.prompts), prompts.returned :]


class _Choice(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Chooses each prompt's next token, and excludes all others in all of its branches."""

    def __init__(
        self, request: Request, prompts: Prompts, combine: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self._request, self._combine = request, combine
        self._returned = prompts.returned
        self._branches = len(prompts) // len(request.prompts)
        self._warpers = _warpers(request.config)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return 0 for the chosen token and -inf for all others, shape (G * B, V)."""
        request = self._request
        ids = input_ids[: len(request.prompts), self._returned :]
        chosen = self._combine(scores.float())
        if request.first is not None:
            request.first.record(chosen)
        chosen = self._warpers(ids, request.processors(ids, chosen))
        token = _choose_token(chosen, sample=bool(request.config.do_sample)).repeat(self._branches)
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


@contextmanager
def _outputs_of(model: Any) -> Iterator[list[Any]]:
    """In a `with` block, store the output of this thread's last forward pass of the model."""
    outputs: list[Any] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        outputs[:] = [output]

    hook = model.register_forward_hook(in_this_thread(keep))
    try:
        yield outputs
    finally:
        hook.remove()


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    """Return the logits processors for sampling, in transformers' order."""
    warpers = LogitsProcessorList()
    if config.do_sample:
        if config.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(float(config.temperature)))
        if config.top_k:
            warpers.append(TopKLogitsWarper(int(config.top_k)))
        if config.top_p is not None and config.top_p < 1.0:
            warpers.append(TopPLogitsWarper(float(config.top_p)))
    return warpers


def _choose_token(scores: torch.Tensor, *, sample: bool) -> torch.Tensor:
    """Return the next token of each prompt, shape (B,)."""
    if not sample:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1)[:, 0]


def mask_implausible(scores: torch.Tensor, reference: torch.Tensor, share: float) -> torch.Tensor:
    """Exclude tokens that are implausible under a reference.

    Args:
        scores: Shape (B, V).
        reference: Logits or log probabilities of the reference, shape (B, V).
        share: Tokens below this share of the likeliest token's probability get -inf (the adaptive
            plausibility constraint of contrastive decoding); 0 keeps all.
    """
    if share == 0:
        return scores
    cutoff = reference.amax(-1, keepdim=True) + torch.tensor(share).log()
    return scores.masked_fill(reference < cutoff, -torch.inf)
